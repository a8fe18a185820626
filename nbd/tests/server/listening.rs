//! Where the server listens, whom it admits, and what it leaves behind.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};

use nbd::{BindError, Limits, Listen, Listener, Server};

use crate::rig::{Rig, named, run, text};

#[test]
fn the_socket_is_for_its_owner_and_goes_with_the_server() {
    let rig = Rig::new();
    let served = rig.serve();
    let mode = std::fs::metadata(&served.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let listen = Listen::Unix(served.socket.clone());
    let again = Listener::bind(&listen, None);
    assert!(matches!(again, Err(BindError::InUse(_))), "{again:?}");
    served.check_alive();
    served.server.stop();
    assert!(!served.socket.exists());
}

#[test]
fn what_a_dead_server_left_is_replaced_and_what_is_no_socket_is_not() {
    let rig = Rig::new();
    drop(UnixListener::bind(rig.path("nbd.sock")).unwrap());
    assert!(rig.path("nbd.sock").exists(), "a socket of a process that died");
    rig.serve().check_alive();
    let listen = Listen::Unix(rig.image.clone());
    let refused = Listener::bind(&listen, None);
    assert!(matches!(refused, Err(BindError::NoSocket(_))), "{refused:?}");
    assert!(rig.image.exists());
}

#[test]
fn a_file_that_is_another_servers_by_now_is_left() {
    let rig = Rig::new();
    let served = rig.serve();
    std::fs::remove_file(&served.socket).unwrap();
    let _other = UnixListener::bind(&served.socket).unwrap();
    served.server.stop();
    assert!(served.socket.exists());
}

#[test]
fn without_tls_only_this_machine_is_served() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:10809"] {
        let listen = Listen::Tcp(address.parse().unwrap());
        let refused = Listener::bind(&listen, None);
        let error = refused.unwrap_err();
        assert!(matches!(error, BindError::Exposed(_)), "{error}");
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
}

#[test]
fn a_server_that_stops_holds_the_disk_no_longer() {
    let rig = Rig::new();
    let export = rig.raw();
    let served = rig.serve_export(export.clone(), Limits::default());
    // A client in the middle of everything: connected, and silent.
    let _client = served.connect();
    served.check_alive();
    served.server.stop();
    assert_eq!(std::sync::Arc::strong_count(&export), 1);
}

#[test]
fn a_socket_that_another_process_made_is_served_and_its_name_is_left_to_it() {
    let rig = Rig::new();
    let path = rig.path("theirs.sock");
    let theirs = UnixListener::bind(&path).unwrap();
    let listener = Listener::received(theirs.into()).unwrap();
    let server = Server::start(listener, vec![named(rig.raw())], Limits::default()).unwrap();
    run("nbdinfo", &[&format!("nbd+unix:///vda?socket={}", text(&path))]);
    server.stop();
    assert!(path.exists());
}

#[test]
fn what_is_handed_over_must_listen_and_may_not_be_open_to_others() {
    let rig = Rig::new();
    let file = std::fs::File::open(&rig.image).unwrap();
    let (stream, _other) = UnixStream::pair().unwrap();
    for no_listener in [file.into(), stream.into()] {
        let refused = Listener::received(no_listener);
        assert!(matches!(refused, Err(BindError::Received(_))), "{refused:?}");
    }
    let open = TcpListener::bind("0.0.0.0:0").unwrap();
    let refused = Listener::received(open.into());
    assert!(matches!(refused, Err(BindError::Exposed(_))), "{refused:?}");
}
