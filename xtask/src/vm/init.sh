#!/bin/busybox sh
# The first process of an emulated machine: makes of it what the testbed needs,
# runs the test programs, says on the console how each went, and switches off.
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
mkdir -p /run/netns /tmp/taken /tmp/output /tmp/notes
ulimit -n 1048576
# Whatever happens, this machine ends; also without anybody who looks at it.
(sleep "$WHOLE_LIMIT"; echo "@weir late"; poweroff -f) &
for module in /weir/modules/*; do
    insmod "$module" || echo "insmod $module failed"
done
echo "@weir kernel $(uname -r)"
export WEIR_BIN=/weir/weir TESTBED_TOOL_BIN=/weir/testbed-tool TESTBED_PATIENCE="$PATIENCE"

# Runs what nobody has taken yet, one program after the other. They wait more
# than they work, so that two can run at once; each speaks when it is done.
lane() {
    for test in $TESTS; do
        mkdir "/tmp/taken/$test" 2>/dev/null || continue
        TESTBED_NOTES="/tmp/notes/$test" timeout -s KILL "$LIMIT" \
            "/weir/tests/$test" --test-threads=1 >"/tmp/output/$test" 2>&1
        code=$?
        until mkdir /tmp/speaking 2>/dev/null; do sleep 1; done
        echo "@weir begin $test"
        tail -n 400 "/tmp/output/$test"
        # The output may end in the middle of a line.
        echo
        [ -f "/tmp/notes/$test" ] && sed 's/^/@weir note /' "/tmp/notes/$test"
        echo "@weir end $test $code"
        rmdir /tmp/speaking
    done
}
lane &
other=$!
lane
wait "$other"
echo "@weir done"
poweroff -f
