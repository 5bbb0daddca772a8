//! Bytes read as decisions.

/// Bytes that decide; when there are no more, everything is zero.
pub struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    pub fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'b [u8] {
        std::mem::take(&mut self.0)
    }

    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        bytes.fill_with(|| self.byte());
        u64::from_le_bytes(bytes)
    }

    /// Any number, most often one at an edge or near `near`.
    pub fn anything(&mut self, near: u64) -> u64 {
        match self.byte() % 8 {
            0 => self.number(),
            1 => u64::MAX - u64::from(self.byte()),
            2 => 1 << (self.byte() % 64),
            3 => (1 << (self.byte() % 64)) - 1,
            4 => u64::from(self.byte()),
            5 => near.wrapping_add(u64::from(self.byte() % 16)),
            6 => near.wrapping_sub(u64::from(self.byte() % 16)),
            _ => near.wrapping_add(u64::from(self.byte()).wrapping_mul(64)),
        }
    }

    /// An index below `count`, or 0 if there are none.
    pub fn index(&mut self, count: usize) -> usize {
        let wide = usize::from(self.byte()) << 8 | usize::from(self.byte());
        wide.checked_rem(count).unwrap_or_default()
    }

    /// Whether something that happens once in `times` happens.
    pub fn once_in(&mut self, times: u8) -> bool {
        self.byte().is_multiple_of(times)
    }
}

/// Does something to a list that no list of its kind should survive unseen: takes out, repeats, swaps or adds items.
pub fn disturb<T: Clone>(input: &mut Input<'_>, list: &mut Vec<T>) {
    let (first, second) = (input.index(list.len()), input.index(list.len()));
    match input.byte() % 5 {
        0 if !list.is_empty() => drop(list.remove(first)),
        1 if !list.is_empty() => list.insert(second, list[first].clone()),
        2 if !list.is_empty() => list.swap(first, second),
        3 => list.truncate(first),
        _ if !list.is_empty() => {
            let copies = usize::from(input.byte()) * usize::from(input.byte() % 8);
            let item = list[first].clone();
            list.splice(second..second, std::iter::repeat_n(item, copies));
        }
        _ => {}
    }
}

/// Changes some of the bytes: single ones, whole numbers, or how many there are.
pub fn disturb_bytes(input: &mut Input<'_>, bytes: &mut Vec<u8>) {
    for _ in 0..=input.byte() % 4 {
        let at = input.index(bytes.len());
        match input.byte() % 6 {
            0 => bytes.truncate(at),
            1 => {
                let count = usize::from(input.byte());
                let copy: Vec<u8> = bytes[at..].iter().copied().take(count).collect();
                bytes.splice(at..at, copy);
            }
            2 => {
                let end = bytes.len().min(at + usize::from(input.byte() % 32));
                bytes.drain(at..end);
            }
            3 if at < bytes.len() => bytes[at] = input.byte(),
            4 if at + 4 <= bytes.len() => {
                let near =
                    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
                let number = input.anything(near.into()) as u32;
                bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            }
            5 if at + 8 <= bytes.len() => {
                let near = bytes[at..at + 8]
                    .iter()
                    .rev()
                    .fold(0, |near, byte| near << 8 | u64::from(*byte));
                let number = input.anything(near);
                bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
            _ => bytes.push(input.byte()),
        }
    }
}
