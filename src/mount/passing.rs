//! Messages with file descriptors over a Unix socket: from fusermount3, and between the processes of a node.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Descriptors of one message, at most.
const MOST_FILES: usize = 4;

/// Sends bytes, at least one, and descriptors.
pub(super) fn send(socket: &UnixStream, bytes: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // NOSIGNAL: a closed peer gives an error instead of SIGPIPE.
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives the next message: at most `room` bytes, and its descriptors. No bytes mean that the peer has closed.
pub(super) fn receive(socket: &UnixStream, room: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; room];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    bytes.truncate(received.bytes);
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok((bytes, files.flatten().collect()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn bytes_and_files_arrive_together() {
        let (ours, theirs) = UnixStream::pair().unwrap_or_else(|error| panic!("{error}"));
        let (mut reader, writer) = io::pipe().unwrap_or_else(|error| panic!("{error}"));
        assert!(send(&ours, b"hello", &[writer.as_fd()]).is_ok());
        drop(writer);
        let (bytes, mut files) = receive(&theirs, 100).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((bytes.as_slice(), files.len()), (&b"hello"[..], 1));
        let mut file = std::fs::File::from(files.remove(0));
        assert!(file.write_all(b"x").is_ok());
        drop(file);
        let mut text = String::new();
        assert!(io::Read::read_to_string(&mut reader, &mut text).is_ok() && text == "x");
        drop(ours);
        assert!(receive(&theirs, 100).is_ok_and(|(bytes, files)| bytes.is_empty() && files.is_empty()));
    }
}
