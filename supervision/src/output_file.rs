//! The file that receives what a program prints, and is cut back with it.
//!
//! A program that goes on from an older image prints again what it printed since. So each snapshot notes how long the file
//! was, and before the program goes on the file is cut to that: in the end it is as if nothing had happened.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A regular file that nobody else writes to.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    file: File,
}

impl OutputFile {
    /// Opens the file, which is created when it is missing. Nothing in it changes yet.
    ///
    /// # Errors
    ///
    /// What the system says; [`io::ErrorKind::InvalidInput`] when it is no regular file: nothing else can be cut.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file, so it cannot be cut back",
            ));
        }
        Ok(Self { path, file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long it is, in bytes.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn byte_len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Whether the file can be cut to so many bytes: returns how many it has.
    ///
    /// # Errors
    ///
    /// What the system says; [`io::ErrorKind::UnexpectedEof`] when the file is shorter: something of it is lost.
    pub fn check_holds(&self, bytes: u64) -> io::Result<u64> {
        let len = self.byte_len()?;
        if len < bytes {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it has {len} bytes, but the program had written {bytes}"),
            ));
        }
        Ok(len)
    }

    /// Cuts the file to what a program had printed whose record says `bytes`; to nothing for one that starts. What comes
    /// next is written behind that. It is durable on return.
    ///
    /// # Errors
    ///
    /// What the system says; [`io::ErrorKind::UnexpectedEof`] when the file is shorter: something of it is lost.
    pub fn cut_to(&mut self, bytes: u64) -> io::Result<()> {
        let len = self.check_holds(bytes)?;
        if len > bytes {
            self.file.set_len(bytes)?;
            self.file.sync_all()?;
        }
        self.file.seek(SeekFrom::Start(bytes))?;
        Ok(())
    }

    /// Another descriptor for the program to write to, at the same place.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// Another handle of the same file.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            path: self.path.clone(),
            file: self.file.try_clone()?,
        })
    }

    /// Makes what has been written durable.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_is_cut_and_written_on_from_there_and_one_that_lost_something_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out");
        let mut output = OutputFile::open(&path).expect("a file");
        let mut program = File::from(output.descriptor().expect("a descriptor"));
        program.write_all(b"0123456789").expect("written");
        output.cut_to(4).expect("cut");
        program.write_all(b"ab").expect("written");
        assert_eq!(std::fs::read(&path).expect("the file"), b"0123ab");
        let refused = output.cut_to(7).expect_err("there is less");
        assert_eq!(refused.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(output.byte_len().expect("a length"), 6);
        let directory = OutputFile::open(folder.path()).expect_err("no file");
        assert_eq!(directory.kind(), io::ErrorKind::IsADirectory);
        let device = OutputFile::open("/dev/null").expect_err("no regular file");
        assert_eq!(device.kind(), io::ErrorKind::InvalidInput);
    }
}
