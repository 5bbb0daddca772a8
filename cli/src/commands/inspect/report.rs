//! What an image contains, in the form that `--json` prints.

use serde::Serialize;
use wsnap::names::Names;
use wsnap::snapshots::{
    Frame, FrameState, Invocation, Manifest, Phase, Rejection, StoredImage, TableState, Value,
};
use wsnap::wasi::{
    Access, FdFlags, SavedDescriptor, SavedFile, SavedFileKind, SavedState, SavedVolume, Standard,
};

use wsnap::{OWN_SECTION, SavedOwn, WASI_SECTION};

use crate::failure::Failure;
use crate::program::{describe, type_name};

#[derive(Serialize)]
pub(in crate::commands) struct Report {
    pub image: String,
    pub module: String,
    pub deterministic: bool,
    pub invocation: InvocationReport,
    /// How many frames there are, shown or not.
    pub frame_count: usize,
    /// Innermost first.
    pub frames: Vec<FrameReport>,
    pub memories: Vec<MemoryReport>,
    pub volumes: Vec<VolumeReport>,
    pub globals: Vec<SlotReport>,
    pub tables: Vec<TableReport>,
    pub dropped_data_segments: Vec<u32>,
    pub dropped_element_segments: Vec<u32>,
    pub exceptions: Vec<ExceptionReport>,
    /// How often the program had been resumed when the image was taken; always 0 for a deterministic one.
    pub resumes: u64,
    /// The program itself asked for this snapshot, and is told so when it is resumed.
    pub in_own_snapshot: bool,
    /// Why its program does not go on from it by itself: once for each record that says so.
    pub rejected: Vec<Rejection>,
    /// None when the program has no WASI state.
    pub wasi: Option<WasiReport>,
    /// The names of all sections of host state.
    pub host_sections: Vec<String>,
}

#[derive(PartialEq, Serialize)]
pub(in crate::commands) struct InvocationReport {
    /// `start` while the module's start function runs, then `export`.
    pub phase: &'static str,
    pub export: String,
    pub arguments: Vec<ValueReport>,
}

#[derive(PartialEq, Serialize)]
pub(in crate::commands) struct FrameReport {
    pub function: u32,
    pub function_name: Option<String>,
    /// Where in the original module the instruction starts, in bytes.
    pub offset: u32,
    /// `calling`, `next` or `host-call`.
    pub state: &'static str,
    /// The live ones.
    pub locals: Vec<SlotReport>,
    /// Bottom first.
    pub operands: Vec<ValueReport>,
}

/// A value that has an index and perhaps a name: a local or a global.
#[derive(PartialEq, Serialize)]
pub(in crate::commands) struct SlotReport {
    pub index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(flatten)]
    pub value: ValueReport,
}

#[derive(PartialEq, Serialize)]
pub(in crate::commands) struct ValueReport {
    #[serde(rename = "type")]
    pub type_name: &'static str,
    pub value: Number,
    /// The bits of a float, which its decimal form cannot tell apart when it isn't a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<String>,
}

/// A number where JSON has it, and a text where it would lose something.
#[derive(PartialEq, Serialize)]
#[serde(untagged)]
pub(in crate::commands) enum Number {
    Integer(i64),
    Text(String),
}

#[derive(Serialize)]
pub(in crate::commands) struct MemoryReport {
    pub index: usize,
    pub bytes: u64,
    pub pages: u64,
    /// What is not stored is zero.
    pub stored_bytes: u64,
    pub content: String,
}

#[derive(Serialize)]
pub(in crate::commands) struct VolumeReport {
    pub name: String,
    pub guest_path: String,
    /// How long the content of its files is, in whole pages.
    pub bytes: u64,
    /// What is not stored is zero.
    pub stored_bytes: u64,
    pub content: String,
}

#[derive(Serialize)]
pub(in crate::commands) struct TableReport {
    pub index: u32,
    pub length: u64,
    pub runs: Vec<RunReport>,
}

/// Equal neighbours in a table.
#[derive(Serialize)]
pub(in crate::commands) struct RunReport {
    pub length: u64,
    #[serde(flatten)]
    pub value: ValueReport,
}

#[derive(Serialize)]
pub(in crate::commands) struct ExceptionReport {
    pub index: usize,
    pub tag: u32,
    pub fields: Vec<ValueReport>,
}

#[derive(Default, PartialEq, Serialize)]
pub(in crate::commands) struct WasiReport {
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
    /// The guest's names of the directories that it was granted.
    pub directories: Vec<String>,
    pub monotonic_ns: u64,
    /// How many bytes of its random stream a deterministic program has drawn.
    pub random_bytes_drawn: Option<u64>,
    /// A wait for time or streams was cut short.
    pub waiting: bool,
    pub descriptors: Vec<DescriptorReport>,
}

#[derive(PartialEq, Serialize)]
pub(in crate::commands) struct DescriptorReport {
    pub fd: u32,
    /// `stdin`, `stdout`, `stderr`, `granted directory`, `directory`, `listener` with its number among
    /// those that were granted, `connection`, or what sort of file it is.
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// `read`, `write`, `append`, `nonblock`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<&'static str>,
}

impl Report {
    /// Describes an image with as many of its innermost frames.
    pub fn new(image: &StoredImage, names: &Names, frames: usize) -> Result<Self, Failure> {
        let manifest = image.manifest();
        let innermost = manifest.frames.iter().rev().take(frames);
        let state = saved_state(manifest)?;
        let saved_volumes = state.as_ref().map_or(&[][..], |state| &state.volumes);
        let own = own(manifest)?;
        Ok(Self {
            image: image.id().to_string(),
            module: manifest.module.to_string(),
            deterministic: manifest.deterministic,
            invocation: invocation(&manifest.invocation),
            frame_count: manifest.frames.len(),
            frames: innermost.map(|one| frame(one, names)).collect(),
            memories: memories(image, saved_volumes.len()),
            volumes: volumes(image, saved_volumes),
            globals: manifest
                .globals
                .iter()
                .map(|global| slot(global.index, None, &global.value))
                .collect(),
            tables: manifest.tables.iter().map(table).collect(),
            dropped_data_segments: manifest.dropped_data.clone(),
            dropped_element_segments: manifest.dropped_elements.clone(),
            exceptions: exceptions(manifest),
            resumes: own.resumes,
            in_own_snapshot: own.is_in_snapshot,
            rejected: Vec::new(),
            wasi: wasi(manifest)?,
            host_sections: manifest.host.keys().cloned().collect(),
        })
    }
}

fn own(manifest: &Manifest) -> Result<SavedOwn, Failure> {
    match manifest.host.get(OWN_SECTION) {
        Some(bytes) => Ok(SavedOwn::decode(bytes)?),
        None => Ok(SavedOwn::default()),
    }
}

pub(in crate::commands) fn invocation(invocation: &Invocation) -> InvocationReport {
    InvocationReport {
        phase: match invocation.phase {
            Phase::Start => "start",
            Phase::Export => "export",
        },
        export: invocation.export.clone(),
        arguments: values(&invocation.arguments),
    }
}

pub(in crate::commands) fn frame(frame: &Frame, names: &Names) -> FrameReport {
    let local =
        |(index, value): &(u32, Value)| slot(*index, names.local(frame.function, *index), value);
    FrameReport {
        function: frame.function,
        function_name: names.function(frame.function).map(str::to_owned),
        offset: frame.offset,
        state: match frame.state {
            FrameState::Calling => "calling",
            FrameState::Next => "next",
            FrameState::HostCall => "host-call",
        },
        locals: frame.locals.iter().map(local).collect(),
        operands: values(&frame.operands),
    }
}

fn slot(index: u32, name: Option<&str>, value: &Value) -> SlotReport {
    SlotReport {
        index,
        name: name.map(str::to_owned),
        value: ValueReport::of(value),
    }
}

fn values(values: &[Value]) -> Vec<ValueReport> {
    values.iter().map(ValueReport::of).collect()
}

impl ValueReport {
    /// The value with its type.
    pub fn of(value: &Value) -> Self {
        let (number, bits) = match *value {
            Value::I32(number) => (Number::Integer(number.into()), None),
            Value::I64(number) => (Number::Integer(number), None),
            Value::F32(bits) => (Number::Text(describe(value)), Some(format!("{bits:#010x}"))),
            Value::F64(bits) => (Number::Text(describe(value)), Some(format!("{bits:#018x}"))),
            Value::V128(bits) => (Number::Text(format!("{bits:#034x}")), None),
            Value::FuncRef(_) | Value::ExternRefNull | Value::ExnRef(_) => {
                (Number::Text(describe(value)), None)
            }
        };
        Self {
            type_name: type_name(value),
            value: number,
            bits,
        }
    }
}

/// The volumes, whose contents come behind the memories.
fn volumes(image: &StoredImage, saved: &[SavedVolume]) -> Vec<VolumeReport> {
    let states = image.manifest().memories.iter().zip(image.memories());
    let contents = states.skip(image.memories().len().saturating_sub(saved.len()));
    saved
        .iter()
        .zip(contents)
        .map(|(volume, (state, stored))| VolumeReport {
            name: volume.name.clone(),
            guest_path: volume.guest_path.clone(),
            bytes: stored.byte_len(),
            stored_bytes: stored.stored_len(),
            content: state.content.to_string(),
        })
        .collect()
}

fn memories(image: &StoredImage, volumes: usize) -> Vec<MemoryReport> {
    let states = image.manifest().memories.iter().zip(image.memories());
    states
        .take(image.memories().len().saturating_sub(volumes))
        .enumerate()
        .map(|(index, (state, stored))| MemoryReport {
            index,
            bytes: stored.byte_len(),
            pages: state.pages,
            stored_bytes: stored.stored_len(),
            content: state.content.to_string(),
        })
        .collect()
}

fn table(table: &TableState) -> TableReport {
    let runs = table.elements.runs().iter().map(|run| RunReport {
        length: run.length,
        value: ValueReport::of(&run.value),
    });
    TableReport {
        index: table.index,
        length: table.elements.len(),
        runs: runs.collect(),
    }
}

fn exceptions(manifest: &Manifest) -> Vec<ExceptionReport> {
    let exceptions = manifest.exceptions.iter().enumerate();
    exceptions
        .map(|(index, exception)| ExceptionReport {
            index,
            tag: exception.tag,
            fields: values(&exception.fields),
        })
        .collect()
}

/// The host state, if the image has any.
pub(in crate::commands) fn saved_state(manifest: &Manifest) -> Result<Option<SavedState>, Failure> {
    let section = manifest.host.get(WASI_SECTION);
    let state = section.map(|bytes| SavedState::decode(bytes)).transpose()?;
    Ok(state)
}

pub(in crate::commands) fn wasi(manifest: &Manifest) -> Result<Option<WasiReport>, Failure> {
    let Some(state) = saved_state(manifest)? else {
        return Ok(None);
    };
    let descriptors = state.descriptors.iter();
    Ok(Some(WasiReport {
        arguments: state.args.iter().map(|arg| lossy(arg)).collect(),
        environment: state.env.iter().map(|variable| lossy(variable)).collect(),
        directories: state.preopens.clone(),
        monotonic_ns: state.monotonic_ns,
        random_bytes_drawn: state.random.map(|random| random.position),
        waiting: state.pending.is_some(),
        descriptors: descriptors
            .map(|(fd, saved)| descriptor(&state, *fd, saved))
            .collect(),
    }))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn descriptor(state: &SavedState, fd: u32, saved: &SavedDescriptor) -> DescriptorReport {
    let plain = |kind: &str, path: Option<String>| DescriptorReport {
        fd,
        kind: kind.to_owned(),
        path,
        offset: None,
        bytes: None,
        flags: Vec::new(),
    };
    match saved {
        SavedDescriptor::Stream(Standard::Input) => plain("stdin", None),
        SavedDescriptor::Stream(Standard::Output) => plain("stdout", None),
        SavedDescriptor::Stream(Standard::Error) => plain("stderr", None),
        SavedDescriptor::Preopen(preopen) => {
            plain("granted directory", Some(state.guest_path(*preopen, ".")))
        }
        SavedDescriptor::Directory(directory) => plain(
            match directory.removed {
                true => "removed directory",
                false => "directory",
            },
            Some(state.guest_path(directory.preopen, &directory.path)),
        ),
        SavedDescriptor::File(file) => open_file(state, fd, file),
        SavedDescriptor::Lost(lost) => {
            plain("lost", Some(state.guest_path(lost.preopen, &lost.path)))
        }
        SavedDescriptor::VolumeDirectory(directory) => {
            let kind = match directory.preopened {
                true => "volume",
                false => "directory in a volume",
            };
            plain(kind, state.volume_path(directory.volume, directory.inode))
        }
        SavedDescriptor::VolumeFile(file) => DescriptorReport {
            offset: Some(file.offset),
            bytes: state.volume_file_bytes(file.volume, file.inode),
            flags: flags(file.access, file.flags),
            ..plain(
                "file in a volume",
                state.volume_path(file.volume, file.inode),
            )
        },
        SavedDescriptor::Listener(listener) => DescriptorReport {
            flags: nonblock(listener.nonblocking),
            ..plain(
                &format!("listener {}", u64::from(listener.listener) + 1),
                None,
            )
        },
        SavedDescriptor::Connection(connection) => DescriptorReport {
            flags: nonblock(connection.nonblocking),
            ..plain("connection", None)
        },
    }
}

fn nonblock(is_set: bool) -> Vec<&'static str> {
    is_set.then_some("nonblock").into_iter().collect()
}

fn open_file(state: &SavedState, fd: u32, file: &SavedFile) -> DescriptorReport {
    let (kind, bytes) = match &file.kind {
        SavedFileKind::Regular(fingerprint) => ("file".to_owned(), Some(fingerprint.size_bytes)),
        SavedFileKind::Special(file_type) => (file_type.to_string(), None),
        SavedFileKind::Carried(content) => {
            let index = usize::try_from(*content).ok();
            let content = index.and_then(|index| state.carried.get(index));
            let bytes = content.map(|content| content.size_bytes);
            ("removed file".to_owned(), bytes)
        }
    };
    DescriptorReport {
        fd,
        kind,
        path: Some(state.guest_path(file.preopen, &file.path)),
        offset: Some(file.offset),
        bytes,
        flags: flags(file.access, file.flags),
    }
}

fn flags(access: Access, flags: FdFlags) -> Vec<&'static str> {
    let flags = [
        (access.read, "read"),
        (access.write, "write"),
        (flags.contains(FdFlags::APPEND), "append"),
        (flags.contains(FdFlags::NONBLOCK), "nonblock"),
    ];
    let set = flags
        .iter()
        .filter_map(|(is_set, name)| is_set.then_some(*name));
    set.collect()
}

impl FrameReport {
    /// The function's name, or its index when it has none.
    pub fn label(&self) -> String {
        match &self.function_name {
            Some(name) => name.clone(),
            None => format!("function {}", self.function),
        }
    }
}

impl ValueReport {
    /// The value with its type, for people.
    pub fn text(&self) -> String {
        match &self.value {
            Number::Integer(number) => format!("{} {number}", self.type_name),
            Number::Text(text) => format!("{} {text}", self.type_name),
        }
    }
}
