//! An object store in memory that goes away, loses answers, is late, or breaks its promises when a test says so.
//!
//! Owns:     the switches.
//! Does not: change anything while none is on.
//!
//! What it has done is durable. What a test calls a cut is the end of the process that speaks to it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use model::{Clock, SystemClock};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use storage::Tables;

/// What becomes of one put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does not reach the store.
    Unreached,
    /// It is done, and nobody is told.
    AnswerLost,
    /// Nobody is told, and it is done only when [`FaultStore::deliver`] is called.
    Late,
    /// The store says that it has no right to.
    Refused,
}

/// A promise that a store only seems to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pretence {
    /// Put-if-absent puts.
    PutsAlways,
    /// Lists do not have what is new.
    OldLists,
}

/// See the module. Clones are one store in one life.
#[derive(Clone)]
pub(crate) struct FaultStore {
    inner: Arc<Inner>,
    life: u64,
}

struct Inner {
    store: InMemory,
    state: Mutex<State>,
}

struct Planned {
    applies: Box<dyn Fn(&Path) -> bool + Send>,
    fault: Fault,
    /// Whether the store is away from then on.
    leaves: bool,
}

#[derive(Default)]
struct State {
    life: u64,
    /// Puts, parts and deletions so far.
    changes: u64,
    /// Requests of each object so far that read it.
    reads: HashMap<String, u64>,
    /// The change at which the process ends, and whether that is done.
    cut: Option<(u64, bool)>,
    is_off: bool,
    is_away: bool,
    faults: Vec<Planned>,
    late: Vec<(Path, PutPayload, PutOptions)>,
    pretence: Option<Pretence>,
}

impl FaultStore {
    pub(crate) fn new() -> FaultStore {
        FaultStore { inner: Arc::new(Inner { store: InMemory::new(), state: Mutex::default() }), life: 0 }
    }

    /// A copy with the same objects, all switches off.
    pub(crate) fn fork(&self) -> FaultStore {
        let store = self.inner.store.fork();
        FaultStore { inner: Arc::new(Inner { store, state: Mutex::default() }), life: 0 }
    }

    /// As the next process reaches it; all switches are off.
    pub(crate) fn next_life(&self) -> FaultStore {
        let mut state = self.state();
        let late = std::mem::take(&mut state.late);
        *state = State { life: state.life + 1, late, ..State::default() };
        FaultStore { inner: Arc::clone(&self.inner), life: state.life }
    }

    /// The tables below `s3://bucket/tables`.
    pub(crate) fn tables(&self) -> Tables {
        let store: Arc<dyn ObjectStore> = Arc::new(self.clone());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let prefix = Path::from("tables");
        let pause_max = Duration::from_millis(4);
        Tables::in_store("s3://bucket/tables", prefix, [Arc::clone(&store), store], pause_max, &clock).unwrap()
    }

    /// Ends the process at the `n`-th change from now, counted from 1; whether that is done is told by `is_done`.
    pub(crate) fn cut_after(&self, n: u64, is_done: bool) {
        let mut state = self.state();
        state.cut = Some((state.changes + n, is_done));
    }

    pub(crate) fn is_on(&self) -> bool {
        let state = self.state();
        state.life == self.life && !state.is_off
    }

    pub(crate) fn go_away(&self) {
        self.state().is_away = true;
    }

    pub(crate) fn come_back(&self) {
        self.state().is_away = false;
    }

    /// The next put of a location that `applies` meets `fault`.
    pub(crate) fn fail(&self, fault: Fault, applies: impl Fn(&Path) -> bool + Send + 'static) {
        self.state().faults.push(Planned { applies: Box::new(applies), fault, leaves: false });
    }

    /// The same, and the store is away from then on.
    pub(crate) fn fail_and_leave(&self, fault: Fault, applies: impl Fn(&Path) -> bool + Send + 'static) {
        self.state().faults.push(Planned { applies: Box::new(applies), fault, leaves: true });
    }

    /// Whether all faults that were asked for have happened.
    pub(crate) fn has_failed(&self) -> bool {
        self.state().faults.is_empty()
    }

    pub(crate) fn pretend(&self, pretence: Pretence) {
        self.state().pretence = Some(pretence);
    }

    /// Does the puts that were late of locations that `applies`; returns how many of them found their name free.
    pub(crate) fn deliver(&self, applies: impl Fn(&Path) -> bool) -> usize {
        let mut late = std::mem::take(&mut self.state().late);
        late.retain(|(path, ..)| applies(path));
        let put = |(path, payload, options): (Path, PutPayload, PutOptions)| {
            block_on(self.inner.store.put_opts(&path, payload, options)).is_ok()
        };
        late.into_iter().map(put).filter(|is_done| *is_done).count()
    }

    /// The locations of all objects, in order.
    pub(crate) fn locations(&self) -> Vec<String> {
        let listed = block_on(self.inner.store.list(None).collect::<Vec<_>>());
        let mut locations: Vec<_> = listed.into_iter().map(|meta| meta.unwrap().location.to_string()).collect();
        locations.sort();
        locations
    }

    pub(crate) fn read(&self, location: &str) -> Vec<u8> {
        block_on(async { self.inner.store.get(&Path::from(location)).await.unwrap().bytes().await.unwrap() }).to_vec()
    }

    /// Puts an object past all faults.
    pub(crate) fn plant(&self, location: &str, bytes: Vec<u8>) {
        block_on(self.inner.store.put(&Path::from(location), bytes.into())).unwrap();
    }

    /// Requests so far that read an object.
    pub(crate) fn reads(&self, location: &str) -> u64 {
        self.state().reads.get(location).copied().unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap()
    }

    fn asked(&self) -> Result<()> {
        let state = self.state();
        if state.life != self.life || state.is_off || state.is_away {
            return Err(away(io::ErrorKind::NotConnected));
        }
        Ok(())
    }

    /// A change that is about to be made: whether to make it, and what to tell.
    fn change(&self, location: &Path, is_put: bool) -> Result<Option<Fault>> {
        self.asked()?;
        let mut state = self.state();
        state.changes += 1;
        if let Some((at, is_done)) = state.cut
            && state.changes >= at
        {
            state.is_off = true;
            return Ok(Some(if is_done { Fault::AnswerLost } else { Fault::Unreached }));
        }
        let Some(at) = state.faults.iter().position(|planned| is_put && (planned.applies)(location)) else {
            return Ok(None);
        };
        let planned = state.faults.remove(at);
        state.is_away |= planned.leaves;
        Ok(Some(planned.fault))
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn away(kind: io::ErrorKind) -> Error {
    Error::Generic { store: "fault", source: Box::new(io::Error::new(kind, "planned by a test")) }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultStore")
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultStore")
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, mut options: PutOptions) -> Result<PutResult> {
        let store = &self.inner.store;
        if self.state().pretence == Some(Pretence::PutsAlways) {
            options.mode = PutMode::Overwrite;
        }
        match self.change(location, true)? {
            None => store.put_opts(location, payload, options).await,
            Some(Fault::Unreached) => Err(away(io::ErrorKind::NotConnected)),
            Some(Fault::AnswerLost) => {
                let _ = store.put_opts(location, payload, options).await;
                Err(away(io::ErrorKind::TimedOut))
            }
            Some(Fault::Late) => {
                self.state().late.push((location.clone(), payload, options));
                Err(away(io::ErrorKind::TimedOut))
            }
            Some(Fault::Refused) => {
                Err(Error::PermissionDenied { path: location.to_string(), source: "planned by a test".into() })
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.asked()?;
        let upload = self.inner.store.put_multipart_opts(location, options).await?;
        Ok(Box::new(Upload { store: self.clone(), location: location.clone(), upload }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.asked()?;
        *self.state().reads.entry(location.to_string()).or_default() += 1;
        self.inner.store.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let fault = store.change(&location, false)?;
                    if fault != Some(Fault::Unreached) {
                        store.inner.store.delete(&location).await?;
                    }
                    if fault.is_some() { Err(away(io::ErrorKind::TimedOut)) } else { Ok(location) }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.asked()?;
        let mut listed = self.inner.store.list_with_delimiter(prefix).await?;
        if self.state().pretence == Some(Pretence::OldLists) {
            listed.objects.clear();
        }
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.asked()?;
        self.inner.store.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct Upload {
    store: FaultStore,
    location: Path,
    upload: Box<dyn MultipartUpload>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.store.change(&self.location, false) {
            Ok(None) => self.upload.put_part(data),
            _ => Box::pin(async { Err(away(io::ErrorKind::TimedOut)) }),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.store.change(&self.location, true)?;
        if fault == Some(Fault::Unreached) {
            return Err(away(io::ErrorKind::NotConnected));
        }
        let completed = self.upload.complete().await;
        if fault.is_some() { Err(away(io::ErrorKind::TimedOut)) } else { completed }
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}
