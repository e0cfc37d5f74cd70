//! How far one HTTP connection is: whether its client still owes a request or has yet to read an
//! answer, and how long it may take for that.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::net::slots::{ConnectionSlot, Stage};

/// How long a request's head may take, counted from the end of the answer before it. A client that
/// sends one octet after the other has no longer.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to read an answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// One connection's progress, shared by its stream and its bodies.
pub(super) struct Progress {
    slot: ConnectionSlot,
    /// And when it must have ended.
    stage: watch::Sender<(Stage, Option<Instant>)>,
    /// Whether anything was written that the operating system has not taken yet.
    unsent: watch::Sender<bool>,
    /// Whether the last answer is complete, so that its client has it once nothing is unsent.
    is_answered: AtomicBool,
}

impl Progress {
    pub(super) fn new(slot: ConnectionSlot) -> Arc<Progress> {
        Arc::new(Progress {
            slot,
            stage: watch::Sender::new((Stage::Opening, end_of(Stage::Opening))),
            unsent: watch::Sender::new(false),
            is_answered: AtomicBool::new(false),
        })
    }

    /// A request's head has come. Resolves once the client has read the answer before: a client
    /// that asks again and again without reading must not fill the memory.
    pub(super) async fn head_received(&self) {
        let mut unsent = self.unsent.subscribe();
        // The sender lives as long as this.
        let _ = unsent.wait_for(|unsent| !unsent).await;
        self.is_answered.store(false, Ordering::Relaxed);
        // The request's route has a time of its own for the body, and answers when that is over.
        self.slot.enter(Stage::Opening);
        self.stage.send_replace((Stage::Opening, None));
    }

    /// The request is complete.
    pub(super) fn request_received(&self) {
        // A body that is read to its end behind its own answer changes nothing.
        if self.stage.borrow().0 != Stage::Answering {
            self.enter(Stage::Working);
        }
    }

    /// The answer is made.
    pub(super) fn answering(&self) {
        self.enter(Stage::Answering);
    }

    /// hyper has all of the answer, and flushes next.
    fn answered(&self) {
        self.is_answered.store(true, Ordering::Relaxed);
    }

    fn flushed(&self) {
        self.set_unsent(false);
        if self.is_answered.swap(false, Ordering::Relaxed) {
            self.enter(Stage::Idle);
        }
    }

    fn enter(&self, stage: Stage) {
        self.slot.enter(stage);
        self.stage.send_replace((stage, end_of(stage)));
    }

    fn set_unsent(&self, is_unsent: bool) {
        let change = |unsent: &mut bool| std::mem::replace(unsent, is_unsent) != is_unsent;
        self.unsent.send_if_modified(change);
    }

    /// Resolves when the connection has to close: its client took too long, or another connection
    /// has its slot.
    pub(super) async fn over(&self) {
        tokio::select! {
            () = self.slot.closing() => {}
            () = self.overdue() => {}
        }
    }

    async fn overdue(&self) {
        let mut stages = self.stage.subscribe();
        loop {
            let (_, end) = *stages.borrow_and_update();
            let over = async {
                match end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => return,
                // The sender lives as long as this.
                _ = stages.changed() => {}
            }
        }
    }
}

/// When a stage that begins now must have ended. Requests that are carried out have limits of their
/// own.
fn end_of(stage: Stage) -> Option<Instant> {
    let limit = match stage {
        Stage::Opening | Stage::Idle => HEAD_TIMEOUT,
        Stage::Answering => ANSWER_TIMEOUT,
        Stage::Working => return None,
    };
    Some(Instant::now() + limit)
}

/// The connection, whose [`Progress`] knows whether the client reads.
pub(super) struct Observed<S> {
    inner: S,
    progress: Arc<Progress>,
}

impl<S> Observed<S> {
    pub(super) fn new(inner: S, progress: Arc<Progress>) -> Observed<S> {
        Observed { inner, progress }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let own = self.get_mut();
        own.progress.set_unsent(true);
        Pin::new(&mut own.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let own = self.get_mut();
        own.progress.set_unsent(true);
        Pin::new(&mut own.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// hyper flushes when it has written all that it holds.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let own = self.get_mut();
        ready!(Pin::new(&mut own.inner).poll_flush(context))?;
        own.progress.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

/// A body whose end is noted.
pub(super) struct Tracked<B> {
    body: B,
    end: End,
}

enum End {
    /// Of a request: its last frame was read.
    Request(Arc<Progress>),
    /// Of an answer: hyper is done with it.
    Answer(Arc<Progress>),
}

impl<B: Body> Tracked<B> {
    pub(super) fn request(body: B, progress: Arc<Progress>) -> Tracked<B> {
        if body.is_end_stream() {
            progress.request_received();
        }
        let end = End::Request(progress);
        Tracked { body, end }
    }

    pub(super) fn answer(body: B, progress: Arc<Progress>) -> Tracked<B> {
        let end = End::Answer(progress);
        Tracked { body, end }
    }
}

impl<B: Body + Unpin> Body for Tracked<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let own = self.get_mut();
        let frame = ready!(Pin::new(&mut own.body).poll_frame(context));
        if let End::Request(progress) = &own.end
            && (frame.is_none() || own.body.is_end_stream())
        {
            progress.request_received();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let End::Answer(progress) = self {
            progress.answered();
        }
    }
}
