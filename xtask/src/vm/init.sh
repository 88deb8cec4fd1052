#!/bin/busybox sh
# The first process of an emulated machine: makes of it what the testbed needs,
# runs each test program, says on the console how it went, and switches off.
# The lines that begin with `@weir` are for xtask/src/vm/console.rs.
/bin/busybox --install -s /bin
export PATH=/bin
. /weir/plan
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mkdir -p /run/netns
ulimit -n 1048576
# Whatever happens, this machine ends; also without anybody who looks at it.
(sleep "$WHOLE_LIMIT"; echo "@weir late"; poweroff -f) &
for module in /weir/modules/*; do
    insmod "$module" || echo "insmod $module failed"
done
echo "@weir kernel $(uname -r)"
export WEIR_BIN=/weir/weir TESTBED_TOOL_BIN=/weir/testbed-tool TESTBED_PATIENCE="$PATIENCE"
for test in $TESTS; do
    echo "@weir begin $test"
    timeout -s KILL "$LIMIT" "/weir/tests/$test" --test-threads=1 >/tmp/output 2>&1
    code=$?
    tail -n 400 /tmp/output
    # The output may end in the middle of a line.
    echo
    echo "@weir end $test $code"
done
echo "@weir done"
poweroff -f
