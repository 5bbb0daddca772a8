//! The whole host state of one program, and how it is set up.

use crate::clocks::Clocks;
use crate::descriptors::{Access, Descriptor, Descriptors, Directory, Origin, VolumeDirectory};
use crate::interrupt::Interrupter;
use crate::listing::Listing;
use crate::random::Random;
use crate::restore::AcceptedChange;
use crate::saved_state::PendingWait;
use crate::sockets::{Listener, Socket};
use crate::streams::{Standard, StandardStreams, Streams};
use crate::volume::{ROOT, Volume, VolumeGrant};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The number of the first granted directory, as every libc expects.
const PREOPENS_FIRST: u32 = 3;

/// Directories are opened for reading; what happens in them is another matter.
pub(crate) const PREOPEN_ACCESS: Access = Access {
    read: true,
    write: false,
};

/// A directory that the guest is granted.
#[derive(Debug)]
pub struct Preopen {
    /// The host's directory; nothing outside of it can be reached.
    pub dir: Dir,
    /// Its name in the guest.
    pub guest_path: String,
}

impl Preopen {
    /// Opens the host's directory at `host_path`, for the guest to see as `guest_path`.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn open(host_path: &Path, guest_path: &str) -> Result<Preopen, WasiError> {
        match Dir::open_ambient_dir(host_path, ambient_authority()) {
            Ok(dir) => Ok(Preopen {
                dir,
                guest_path: guest_path.to_owned(),
            }),
            Err(source) => Err(WasiError::Preopen {
                path: host_path.to_owned(),
                source,
            }),
        }
    }
}

/// Why a program's host state could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WasiError {
    /// A directory to grant could not be opened.
    #[error("cannot open the directory {} to grant it", path.display())]
    Preopen {
        /// The host's path.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// An argument or environment variable that no guest could receive.
    #[error("{what} contains a NUL byte")]
    Nul {
        /// The argument or variable.
        what: String,
    },
    /// Two volumes have one name.
    #[error("two volumes are named {name}")]
    VolumeName {
        /// The name.
        name: String,
    },
    /// The host had no resources left.
    #[error("cannot set up the program's descriptors")]
    Resources(#[source] io::Error),
}

/// What a new program is given.
#[derive(Debug, Default)]
pub struct WasiConfig {
    /// The arguments; the first is the program's name.
    pub args: Vec<String>,
    /// The environment: names and values.
    pub env: Vec<(String, String)>,
    /// The granted directories, which get the descriptors from 3 on.
    pub preopens: Vec<Preopen>,
    /// Volumes, which get the descriptors behind them.
    pub volumes: Vec<VolumeGrant>,
    /// The granted listeners, which get the descriptors behind those. They are made non-blocking, which others notice who
    /// use the same sockets.
    pub listeners: Vec<TcpListener>,
    /// The standard streams, by default this process's own.
    pub streams: StandardStreams,
    /// Set: clocks and random bytes are functions of what the guest does, from this seed.
    ///
    /// Times of files are then those of the deterministic epoch, inode numbers are derived from paths, and streams are
    /// always reported as ready by `poll_oneoff`, and so are sockets. The content of files, what arrives on standard input
    /// and from connections, with the pieces in which it arrives, and whether there is something for a socket that does
    /// not wait, remain inputs of the program.
    pub deterministic_seed: Option<[u8; 32]>,
}

/// A granted directory, or one that nothing open needed when the program was resumed.
pub(crate) struct Root {
    pub guest_path: String,
    pub dir: Option<Dir>,
}

/// The whole host state of one program.
pub struct Wasi {
    pub(crate) args: Vec<Vec<u8>>,
    /// As the guest sees it: `NAME=value`.
    pub(crate) env: Vec<Vec<u8>>,
    pub(crate) roots: Vec<Root>,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) descriptors: Descriptors,
    pub(crate) streams: Streams,
    pub(crate) clocks: Clocks,
    pub(crate) random: Random,
    /// The `poll_oneoff` that was suspended and is to be made again.
    pub(crate) pending: Option<PendingWait>,
    pub(crate) interrupter: Interrupter,
    pub(crate) stdin_probe: bool,
    pub(crate) stopped_at_stdin: bool,
    pub(crate) accepted: Vec<AcceptedChange>,
    /// The last directory of the host that was listed.
    pub(crate) listing: Option<Arc<Listing>>,
}

impl Wasi {
    /// The state of a program that has not begun to run.
    ///
    /// # Errors
    ///
    /// [`WasiError::Nul`] if an argument or variable contains a NUL byte, [`WasiError::Resources`] if the host has no
    /// descriptor left.
    pub fn new(config: WasiConfig) -> Result<Wasi, WasiError> {
        let args = config.args.into_iter().map(without_nul);
        let env = config.env.into_iter().map(variable);
        let deterministic = config.deterministic_seed.is_some();
        let mut wasi = Wasi {
            args: args.collect::<Result<_, _>>()?,
            env: env.collect::<Result<_, _>>()?,
            roots: Vec::new(),
            volumes: Vec::new(),
            descriptors: Descriptors::default(),
            streams: Streams::new(config.streams),
            clocks: Clocks::starting_at(0, deterministic),
            random: match config.deterministic_seed {
                None => Random::Host,
                Some(seed) => Random::Seeded { seed, position: 0 },
            },
            pending: None,
            interrupter: Interrupter::new().map_err(WasiError::Resources)?,
            stdin_probe: false,
            stopped_at_stdin: false,
            accepted: Vec::new(),
            listing: None,
        };
        wasi.open_streams().map_err(WasiError::Resources)?;
        for preopen in config.preopens {
            wasi.grant(preopen).map_err(WasiError::Resources)?;
        }
        for volume in config.volumes {
            wasi.grant_volume(volume)?;
        }
        for (index, listener) in (0..).zip(config.listeners) {
            let listener = Listener::new(index, listener, false);
            let placed = listener.and_then(|listener| wasi.grant_listener(listener));
            placed.map_err(WasiError::Resources)?;
        }
        Ok(wasi)
    }

    fn open_streams(&mut self) -> io::Result<()> {
        for standard in Standard::ALL {
            if self.streams.get(standard).is_ok() {
                self.place(standard as u32, Descriptor::Stream(standard))?;
            }
        }
        Ok(())
    }

    fn grant(&mut self, preopen: Preopen) -> io::Result<()> {
        let too_many = |_| io::Error::from(rustix::io::Errno::MFILE);
        let index = u32::try_from(self.roots.len()).map_err(too_many)?;
        let directory = Directory {
            handle: preopen.dir.try_clone()?,
            origin: Origin::of_preopen(index),
            preopened: true,
            access: PREOPEN_ACCESS,
        };
        let fd = PREOPENS_FIRST.saturating_add(index);
        self.place(fd, Descriptor::Directory(directory))?;
        self.roots.push(Root {
            guest_path: preopen.guest_path,
            dir: Some(preopen.dir),
        });
        Ok(())
    }

    fn grant_volume(&mut self, grant: VolumeGrant) -> Result<(), WasiError> {
        if self
            .volumes
            .iter()
            .any(|volume| volume.name() == grant.name)
        {
            return Err(WasiError::VolumeName { name: grant.name });
        }
        let mut volume = Volume::empty(grant, self.clocks.realtime_ns());
        volume.reopen(ROOT);
        let directory = VolumeDirectory {
            volume: self.volumes.len(),
            inode: ROOT,
            preopened: true,
            access: PREOPEN_ACCESS,
        };
        let granted = self.roots.len() + self.volumes.len();
        // A number that is too large has no place.
        let granted = u32::try_from(granted).unwrap_or(u32::MAX);
        let fd = PREOPENS_FIRST.saturating_add(granted);
        self.place(fd, Descriptor::VolumeDirectory(directory))
            .map_err(WasiError::Resources)?;
        self.volumes.push(volume);
        Ok(())
    }

    /// Gives `listener` the number behind all others.
    fn grant_listener(&mut self, listener: Listener) -> io::Result<()> {
        let last = self.descriptors.iter().last();
        let next = last.map_or(0, |(fd, _)| fd.saturating_add(1));
        let socket = Descriptor::Socket(Socket::Listener(listener));
        self.place(next.max(PREOPENS_FIRST), socket)
    }

    fn place(&mut self, fd: u32, descriptor: Descriptor) -> io::Result<()> {
        let placed = self.descriptors.insert_at(fd, descriptor);
        placed.map_err(|_| rustix::io::Errno::MFILE.into())
    }

    /// How many bytes the program has written to its standard output since it was started or resumed here.
    pub fn stdout_bytes(&self) -> u64 {
        self.streams.written(Standard::Output)
    }

    /// Whether clocks and random bytes are functions of what the guest does.
    pub fn is_deterministic(&self) -> bool {
        self.clocks.is_deterministic()
    }

    /// Lets so many descriptors be open, those of streams and granted directories included; those that are open already
    /// stay. None for as many as there are numbers.
    pub fn set_descriptor_limit(&mut self, limit: Option<u32>) {
        self.descriptors.set_limit(limit);
    }

    /// What cuts this program's blocking calls short.
    pub fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }

    /// With `enabled`, a call that would block on standard input returns [`Stop::Suspended`](crate::Stop::Suspended)
    /// instead, and [`stopped_at_stdin`](Wasi::stopped_at_stdin) tells so.
    pub fn set_stdin_probe(&mut self, enabled: bool) {
        self.stdin_probe = enabled;
        self.stopped_at_stdin = false;
    }

    /// Whether the last `fd_read` or `poll_oneoff` was suspended because it would have blocked on standard input.
    pub fn stopped_at_stdin(&self) -> bool {
        self.stopped_at_stdin
    }

    /// How open files differed from what they were when the program was resumed, where that was accepted.
    pub fn accepted_changes(&self) -> &[AcceptedChange] {
        &self.accepted
    }

    /// The path that the guest would use for `origin`.
    pub(crate) fn guest_path(&self, origin: &Origin) -> String {
        let index = usize::try_from(origin.preopen).ok();
        let root = index.and_then(|index| self.roots.get(index));
        join_guest_path(root.map_or("", |root| &root.guest_path), &origin.path)
    }
}

/// The guest's name of `path` below the directory that it knows as `root`.
pub(crate) fn join_guest_path(root: &str, path: &str) -> String {
    if path == "." {
        root.to_owned()
    } else if root.ends_with('/') {
        format!("{root}{path}")
    } else {
        format!("{root}/{path}")
    }
}

fn without_nul(text: String) -> Result<Vec<u8>, WasiError> {
    if text.contains('\0') {
        let what = text.escape_debug().to_string();
        return Err(WasiError::Nul { what });
    }
    Ok(text.into_bytes())
}

/// An environment variable as the guest sees it.
pub(crate) fn variable((name, value): (String, String)) -> Result<Vec<u8>, WasiError> {
    without_nul(format!("{name}={value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_can_move_between_threads_and_be_interrupted_from_any() {
        fn is_send<T: Send>() {}
        fn is_shared<T: Send + Sync + Clone>() {}
        is_send::<Wasi>();
        is_shared::<Interrupter>();
    }
}
