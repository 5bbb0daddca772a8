//! The error numbers of preview 1, and how the host's errors become them.

use std::io;

/// An error number of `wasi_snapshot_preview1`; its discriminant is what the guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum Errno {
    /// No error occurred.
    Success = 0,
    /// Argument list too long.
    TooBig = 1,
    /// Permission denied.
    Acces = 2,
    /// Address in use.
    Addrinuse = 3,
    /// Address not available.
    Addrnotavail = 4,
    /// Address family not supported.
    Afnosupport = 5,
    /// Resource unavailable, or operation would block.
    Again = 6,
    /// Connection already in progress.
    Already = 7,
    /// Bad file descriptor.
    Badf = 8,
    /// Bad message.
    Badmsg = 9,
    /// Device or resource busy.
    Busy = 10,
    /// Operation canceled.
    Canceled = 11,
    /// No child processes.
    Child = 12,
    /// Connection aborted.
    Connaborted = 13,
    /// Connection refused.
    Connrefused = 14,
    /// Connection reset.
    Connreset = 15,
    /// Resource deadlock would occur.
    Deadlk = 16,
    /// Destination address required.
    Destaddrreq = 17,
    /// Mathematics argument out of domain of function.
    Dom = 18,
    /// Disk quota exceeded.
    Dquot = 19,
    /// File exists.
    Exist = 20,
    /// Bad address.
    Fault = 21,
    /// File too large.
    Fbig = 22,
    /// Host is unreachable.
    Hostunreach = 23,
    /// Identifier removed.
    Idrm = 24,
    /// Illegal byte sequence.
    Ilseq = 25,
    /// Operation in progress.
    Inprogress = 26,
    /// Interrupted function.
    Intr = 27,
    /// Invalid argument.
    Inval = 28,
    /// Input or output error.
    Io = 29,
    /// Socket is connected.
    Isconn = 30,
    /// Is a directory.
    Isdir = 31,
    /// Too many levels of symbolic links.
    Loop = 32,
    /// File descriptor value too large.
    Mfile = 33,
    /// Too many links.
    Mlink = 34,
    /// Message too large.
    Msgsize = 35,
    /// Multihop attempted.
    Multihop = 36,
    /// Filename too long.
    Nametoolong = 37,
    /// Network is down.
    Netdown = 38,
    /// Connection aborted by network.
    Netreset = 39,
    /// Network unreachable.
    Netunreach = 40,
    /// Too many files open in system.
    Nfile = 41,
    /// No buffer space available.
    Nobufs = 42,
    /// No such device.
    Nodev = 43,
    /// No such file or directory.
    Noent = 44,
    /// Executable file format error.
    Noexec = 45,
    /// No locks available.
    Nolck = 46,
    /// Link has been severed.
    Nolink = 47,
    /// Not enough space.
    Nomem = 48,
    /// No message of the desired type.
    Nomsg = 49,
    /// Protocol not available.
    Noprotoopt = 50,
    /// No space left on device.
    Nospc = 51,
    /// Function not supported.
    Nosys = 52,
    /// The socket is not connected.
    Notconn = 53,
    /// Not a directory or a symbolic link to a directory.
    Notdir = 54,
    /// Directory not empty.
    Notempty = 55,
    /// State not recoverable.
    Notrecoverable = 56,
    /// Not a socket.
    Notsock = 57,
    /// Not supported, or operation not supported on socket.
    Notsup = 58,
    /// Inappropriate I/O control operation.
    Notty = 59,
    /// No such device or address.
    Nxio = 60,
    /// Value too large to be stored in data type.
    Overflow = 61,
    /// Previous owner died.
    Ownerdead = 62,
    /// Operation not permitted.
    Perm = 63,
    /// Broken pipe.
    Pipe = 64,
    /// Protocol error.
    Proto = 65,
    /// Protocol not supported.
    Protonosupport = 66,
    /// Protocol wrong type for socket.
    Prototype = 67,
    /// Result too large.
    Range = 68,
    /// Read-only file system.
    Rofs = 69,
    /// Invalid seek.
    Spipe = 70,
    /// No such process.
    Srch = 71,
    /// Reserved.
    Stale = 72,
    /// Connection timed out.
    Timedout = 73,
    /// Text file busy.
    Txtbsy = 74,
    /// Cross-device link.
    Xdev = 75,
    /// Extension: capabilities insufficient.
    Notcapable = 76,
}

impl Errno {
    /// The number that the guest's function call returns.
    pub const fn raw(self) -> u32 {
        self as u32
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(error: rustix::io::Errno) -> Errno {
        from_host(error).unwrap_or(Errno::Io)
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Errno {
        let host = rustix::io::Errno::from_io_error(&error);
        // cap-std reports a path that leads out of its directory as an error of its own without a system error
        // number; like wasmtime, we call that "not permitted".
        host.and_then(from_host)
            .unwrap_or_else(|| match error.kind() {
                io::ErrorKind::NotFound => Errno::Noent,
                io::ErrorKind::PermissionDenied => Errno::Perm,
                io::ErrorKind::AlreadyExists => Errno::Exist,
                io::ErrorKind::InvalidInput => Errno::Inval,
                _ => Errno::Io,
            })
    }
}

fn from_host(error: rustix::io::Errno) -> Option<Errno> {
    use rustix::io::Errno as Host;
    Some(match error {
        Host::TOOBIG => Errno::TooBig,
        Host::ACCESS => Errno::Acces,
        Host::ADDRINUSE => Errno::Addrinuse,
        Host::ADDRNOTAVAIL => Errno::Addrnotavail,
        Host::AFNOSUPPORT => Errno::Afnosupport,
        Host::AGAIN => Errno::Again,
        Host::ALREADY => Errno::Already,
        Host::BADF => Errno::Badf,
        Host::BADMSG => Errno::Badmsg,
        Host::BUSY => Errno::Busy,
        Host::CANCELED => Errno::Canceled,
        Host::CHILD => Errno::Child,
        Host::CONNABORTED => Errno::Connaborted,
        Host::CONNREFUSED => Errno::Connrefused,
        Host::CONNRESET => Errno::Connreset,
        Host::DEADLK => Errno::Deadlk,
        Host::DESTADDRREQ => Errno::Destaddrreq,
        Host::DOM => Errno::Dom,
        Host::DQUOT => Errno::Dquot,
        Host::EXIST => Errno::Exist,
        Host::FAULT => Errno::Fault,
        Host::FBIG => Errno::Fbig,
        Host::HOSTUNREACH => Errno::Hostunreach,
        Host::IDRM => Errno::Idrm,
        Host::ILSEQ => Errno::Ilseq,
        Host::INPROGRESS => Errno::Inprogress,
        Host::INTR => Errno::Intr,
        Host::INVAL => Errno::Inval,
        Host::IO => Errno::Io,
        Host::ISCONN => Errno::Isconn,
        Host::ISDIR => Errno::Isdir,
        Host::LOOP => Errno::Loop,
        Host::MFILE => Errno::Mfile,
        Host::MLINK => Errno::Mlink,
        Host::MSGSIZE => Errno::Msgsize,
        Host::MULTIHOP => Errno::Multihop,
        Host::NAMETOOLONG => Errno::Nametoolong,
        Host::NETDOWN => Errno::Netdown,
        Host::NETRESET => Errno::Netreset,
        Host::NETUNREACH => Errno::Netunreach,
        Host::NFILE => Errno::Nfile,
        Host::NOBUFS => Errno::Nobufs,
        Host::NODEV => Errno::Nodev,
        Host::NOENT => Errno::Noent,
        Host::NOEXEC => Errno::Noexec,
        Host::NOLCK => Errno::Nolck,
        Host::NOLINK => Errno::Nolink,
        Host::NOMEM => Errno::Nomem,
        Host::NOMSG => Errno::Nomsg,
        Host::NOPROTOOPT => Errno::Noprotoopt,
        Host::NOSPC => Errno::Nospc,
        Host::NOSYS => Errno::Nosys,
        Host::NOTCONN => Errno::Notconn,
        Host::NOTDIR => Errno::Notdir,
        Host::NOTEMPTY => Errno::Notempty,
        Host::NOTSOCK => Errno::Notsock,
        Host::NOTSUP => Errno::Notsup,
        Host::NOTTY => Errno::Notty,
        Host::NXIO => Errno::Nxio,
        Host::OVERFLOW => Errno::Overflow,
        Host::OWNERDEAD => Errno::Ownerdead,
        Host::PERM => Errno::Perm,
        Host::PIPE => Errno::Pipe,
        Host::PROTO => Errno::Proto,
        Host::PROTONOSUPPORT => Errno::Protonosupport,
        Host::PROTOTYPE => Errno::Prototype,
        Host::RANGE => Errno::Range,
        Host::ROFS => Errno::Rofs,
        Host::SPIPE => Errno::Spipe,
        Host::SRCH => Errno::Srch,
        Host::STALE => Errno::Stale,
        Host::TIMEDOUT => Errno::Timedout,
        Host::TXTBSY => Errno::Txtbsy,
        Host::XDEV => Errno::Xdev,
        _ => return None,
    })
}
