use weir::kernel::*;
fn main() {
    let pins = Pins::new(std::path::Path::new("/tmp/bpffs")).unwrap();
    let cg = Cgroup::open(std::path::Path::new("/sys/fs/cgroup/unified/weir-try")).unwrap();
    let debug = std::env::args().nth(1).is_some();
    match Kernel::load(&pins, &cg, &cg, debug) {
        Ok((k, _s)) => println!("ok {:?} {:?}", k.usage(), k.counters()),
        Err(e) => println!("ERR {e}"),
    }
}
