//! Arguments, environment, clocks, randomness, ending, sockets.

mod common;

use common::{DATA, Guest, OUT, returned};
use wsnap_wasi::{
    DETERMINISTIC_EPOCH_NS, DETERMINISTIC_STEP_NS, Errno, Stop, Wasi, WasiConfig, WasiError,
};

#[test]
fn arguments_arrive_with_their_addresses_and_a_nul_each() {
    let args = ["program", "", "zwölf"].map(str::to_owned).to_vec();
    let mut guest = Guest::with(|config| config.args = args);
    assert_eq!(
        call!(guest.args_sizes_get(OUT, OUT + 4)),
        Ok(Errno::Success)
    );
    assert_eq!((guest.u32(OUT), guest.u32(OUT + 4)), (3, 8 + 1 + 7));
    assert_eq!(call!(guest.args_get(OUT, DATA)), Ok(Errno::Success));
    let addresses = [OUT, OUT + 4, OUT + 8].map(|slot| guest.u32(slot));
    assert_eq!(addresses, [DATA, DATA + 8, DATA + 9]);
    assert_eq!(guest.bytes(DATA, 16), "program\0\0zwölf\0".as_bytes());
}

#[test]
fn the_environment_arrives_as_assignments() {
    let mut guest = Guest::new();
    assert_eq!(
        call!(guest.environ_sizes_get(OUT, OUT + 4)),
        Ok(Errno::Success)
    );
    assert_eq!((guest.u32(OUT), guest.u32(OUT + 4)), (1, 8));
    assert_eq!(call!(guest.environ_get(OUT, DATA)), Ok(Errno::Success));
    assert_eq!(guest.u32(OUT), DATA);
    assert_eq!(guest.bytes(DATA, 8), b"HOME=/w\0");
}

#[test]
fn an_argument_with_a_nul_is_refused() {
    let config = WasiConfig {
        args: vec!["a\0b".to_owned()],
        ..WasiConfig::default()
    };
    match Wasi::new(config) {
        Err(WasiError::Nul { what }) => assert_eq!(what, "a\\0b"),
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn clocks_have_a_time_and_a_resolution() {
    let mut guest = Guest::new();
    for clock in [0, 1] {
        assert_eq!(call!(guest.clock_res_get(clock, OUT)), Ok(Errno::Success));
        assert_eq!(guest.u64(OUT), 1);
    }
    assert_eq!(call!(guest.clock_time_get(0, 1, OUT)), Ok(Errno::Success));
    assert!(guest.u64(OUT) > DETERMINISTIC_EPOCH_NS);
    let earlier = guest.monotonic_ns();
    assert!(guest.monotonic_ns() >= earlier);
}

#[test]
fn processor_time_is_no_clock_here_and_unknown_ones_are_invalid() {
    let mut guest = Guest::new();
    for (clock, errno) in [(2, Errno::Badf), (3, Errno::Badf), (4, Errno::Inval)] {
        assert_eq!(call!(guest.clock_res_get(clock, OUT)), Ok(errno));
        assert_eq!(call!(guest.clock_time_get(clock, 0, OUT)), Ok(errno));
    }
}

#[test]
fn deterministic_clocks_advance_by_a_fixed_step_per_reading() {
    let mut guest = Guest::deterministic(1);
    assert_eq!(guest.monotonic_ns(), DETERMINISTIC_STEP_NS);
    assert_eq!(call!(guest.clock_time_get(0, 0, OUT)), Ok(Errno::Success));
    let realtime_ns = DETERMINISTIC_EPOCH_NS + 2 * DETERMINISTIC_STEP_NS;
    assert_eq!(guest.u64(OUT), realtime_ns);
    assert_eq!(guest.monotonic_ns(), 3 * DETERMINISTIC_STEP_NS);
}

#[test]
fn random_bytes_differ_unless_they_are_seeded() {
    let drawn = |mut guest: Guest| [guest.random::<32>(), guest.random::<32>()];
    let fresh = drawn(Guest::new());
    assert_ne!(fresh[0], fresh[1]);
    assert_ne!(fresh, drawn(Guest::new()));
    let seeded = drawn(Guest::deterministic(1));
    assert_ne!(seeded[0], seeded[1]);
    assert_eq!(seeded, drawn(Guest::deterministic(1)));
    assert_ne!(seeded, drawn(Guest::deterministic(2)));
}

#[test]
fn a_seeded_stream_does_not_depend_on_how_it_is_drawn() {
    let mut whole = Guest::deterministic(1);
    let mut pieces = Guest::deterministic(1);
    let whole = whole.random::<100>();
    let mut joined = pieces.random::<3>().to_vec();
    joined.extend(pieces.random::<97>());
    assert_eq!(whole[..], joined[..]);
}

#[test]
fn ending_tells_the_host_the_code() {
    let mut guest = Guest::new();
    for code in [0, 1, 125, 126, u32::MAX] {
        assert_eq!(call!(guest.proc_exit(code)), Err(Stop::Exit(code)));
    }
}

#[test]
fn signals_cannot_be_raised_and_yielding_works() {
    let mut guest = Guest::new();
    assert_eq!(call!(guest.proc_raise(6)), Ok(Errno::Notsup));
    assert_eq!(call!(guest.proc_raise(31)), Ok(Errno::Inval));
    assert_eq!(returned(call!(guest.sched_yield())), Ok(()));
}

#[test]
fn no_descriptor_is_a_socket() {
    let mut guest = Guest::new();
    for (fd, errno) in [(3, Errno::Notsock), (9, Errno::Badf)] {
        assert_eq!(call!(guest.sock_accept(fd, 0, OUT)), Ok(errno));
        assert_eq!(call!(guest.sock_recv(fd, 0, 0, 0, OUT, OUT)), Ok(errno));
        assert_eq!(call!(guest.sock_send(fd, 0, 0, 0, OUT)), Ok(errno));
        assert_eq!(call!(guest.sock_shutdown(fd, 1)), Ok(errno));
    }
}
