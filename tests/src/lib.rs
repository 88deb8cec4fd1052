//! The testbed: pods as network namespaces with cgroups, a node, and the daemon under test.
