//! Documents that tests apply, in the words of the kinds.

use std::fmt::Display;

/// A Service on a virtual address; `ports` are flow mappings such as `port: 80`.
pub fn service(name: &str, address: impl Display, app: &str, ports: &[&str]) -> String {
    let ports: Vec<String> = ports
        .iter()
        .map(|port| format!("  - {{{port}}}\n"))
        .collect();
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  \
         clusterIPs: [{address}]\n  selector: {{app: {app}}}\n  ports:\n{}",
        ports.concat()
    )
}

/// A `RouteRule` for a service; `routes` are pairs of a version and its weight,
/// `rest` more lines of the spec, each indented by two.
pub fn route_rule(name: &str, service: &str, routes: &[(&str, u32)], rest: &str) -> String {
    let share = |(version, weight): &(&str, u32)| {
        format!("  - {{labels: {{version: {version}}}, weight: {weight}}}\n")
    };
    let routes: Vec<String> = routes.iter().map(share).collect();
    format!(
        "---\napiVersion: weir.dev/v1\nkind: RouteRule\nmetadata: {{name: {name}}}\nspec:\n  \
         destination: {{name: {service}}}\n{rest}  route:\n{}",
        routes.concat()
    )
}

/// An `EgressRule`; `ports` are pairs of a port and its protocol, `rest` as above.
pub fn egress_rule(
    name: &str,
    destination: impl Display,
    ports: &[(u16, &str)],
    rest: &str,
) -> String {
    let opened =
        |(port, protocol): &(u16, &str)| format!("  - {{port: {port}, protocol: {protocol}}}\n");
    let ports: Vec<String> = ports.iter().map(opened).collect();
    format!(
        "---\napiVersion: weir.dev/v1\nkind: EgressRule\nmetadata: {{name: {name}}}\nspec:\n  \
         destination: {{service: \"{destination}\"}}\n{rest}  ports:\n{}",
        ports.concat()
    )
}

/// The node-wide `MeshConfig` with one line of spec.
pub fn mesh_config(spec: &str) -> String {
    format!(
        "---\napiVersion: weir.dev/v1\nkind: MeshConfig\nmetadata: {{name: default}}\nspec: {{{spec}}}\n"
    )
}
