//! What a memtable knows of the layers below it: which of its keys they hold too, and where.
//!
//! Owns:     what was found, and what is still to be looked up.
//! Does not: look: `settle` does.
//!
//! Invariants
//!  1. A shard never changes and a key is in one shard at most (P4). So what was found in a shard stays true while the
//!     shard is there; when it is gone, its keys can only be in shards that came later; and a key that a shard does not
//!     hold is never looked up in it again.
//!  2. While nothing is unknown or suspected at a version of the layers below, `places` names every key that they hold
//!     and this memtable too; the row of such a key is hidden, or complete: it takes nothing more from below.
//!  3. A key of `places` keeps its row: rows are replaced, never taken away.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use model::SeriesKey;

use super::{FieldValue, Memtable, OwnedValue, Standing};
use crate::Shard;
use crate::columns::same;

/// Where an older layer holds a key that this memtable holds too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Below {
    /// In the sealed memtable of the same day.
    Sealed,
    /// Row ordinal in the shard of that path.
    Shard(Arc<str>, u32),
}

/// A key that a layer below may hold.
#[derive(Clone, Debug)]
pub(crate) struct Suspect {
    pub(crate) series: u32,
    pub(crate) key: Arc<SeriesKey>,
    pub(crate) time_us: i64,
    /// Shards of an earlier generation do not have it.
    pub(crate) from: u32,
}

/// What a layer below holds of a key.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) series: u32,
    pub(crate) time_us: i64,
    pub(crate) at: Below,
    /// That the row was removed there.
    pub(crate) is_gone: bool,
    /// That all of that layer is newer than all of this memtable: another node has written it.
    pub(crate) is_newer: bool,
    pub(crate) values: Vec<FieldValue>,
}

/// What must be read before a memtable can be settled against layers that changed.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Series of which nothing is known yet.
    pub(crate) unknown: Vec<(u32, Arc<SeriesKey>)>,
    /// The others, if there are new shards.
    pub(crate) known: Vec<(u32, Arc<SeriesKey>)>,
    /// Which of the shards are new.
    pub(crate) shards: Vec<usize>,
}

/// The times of a series in a new shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    pub(crate) series: u32,
    pub(crate) time_min_us: i64,
    pub(crate) time_max_us: i64,
}

/// A key's place, as it is kept.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Index into `BelowState::shards`, and the row's ordinal there; `None` for the sealed memtable.
    at: Option<(u32, u32)>,
    /// The layer below shows what the row here would: the row is left out.
    is_hidden: bool,
}

/// A shard that was met.
#[derive(Debug)]
struct KnownShard {
    path: Arc<str>,
    /// When all known series were compared with it; `None` before that, and when it is gone.
    generation: Option<u32>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct BelowState {
    /// The version of the layers below that was met last.
    version: Option<u64>,
    /// Counts the times at which layers were met.
    generation: u32,
    shards: Vec<KnownShard>,
    shard_ids: HashMap<Arc<str>, u32>,
    /// Series whose `below_max` is not known.
    unknown: Vec<u32>,
    /// Keys to be looked up: series, time, and the generation before which no shard has it.
    suspects: Vec<(u32, i64, u32)>,
    places: HashMap<(u32, i64), Place>,
}

impl BelowState {
    /// Notes a new series.
    pub(super) fn note_series(&mut self, id: u32) {
        self.unknown.push(id);
    }

    fn shard_id(&mut self, path: &Arc<str>) -> u32 {
        if let Some(id) = self.shard_ids.get(path) {
            return *id;
        }
        let id = u32::try_from(self.shards.len()).expect("a day has fewer than 2^32 shards");
        self.shards.push(KnownShard { path: Arc::clone(path), generation: None });
        self.shard_ids.insert(Arc::clone(path), id);
        id
    }

    fn generation_of(&self, path: &str) -> Option<u32> {
        self.shards[*self.shard_ids.get(path)? as usize].generation
    }
}

/// A row over what lies below it.
pub(super) struct Composed {
    /// By slot.
    pub(super) values: Vec<Option<OwnedValue>>,
    pub(super) standing: Standing,
    /// Values were taken from below.
    is_filled: bool,
    /// The outcome is what lies below.
    is_same: bool,
}

impl Memtable {
    /// Takes note of the layers below: forgets what they no longer hold. `None` if there is nothing to be read before
    /// suspects are looked up; otherwise [`Memtable::met`] is to be called with what was read.
    pub(crate) fn meet(&mut self, version: u64, has_sealed: bool, shards: &[Arc<Shard>]) -> Option<News> {
        let keyed = |id: &u32| (*id, Arc::clone(&self.series[*id as usize].key));
        let unknown: Vec<_> = self.below.unknown.iter().map(keyed).collect();
        if self.below.version == Some(version) {
            return (!unknown.is_empty()).then_some(News { unknown, ..News::default() });
        }
        let present: HashSet<&str> = shards.iter().map(|shard| shard.path.as_str()).collect();
        let below = &mut self.below;
        let is_gone: Vec<bool> = below.shards.iter().map(|known| !present.contains(&*known.path)).collect();
        for (known, is_gone) in below.shards.iter_mut().zip(&is_gone) {
            known.generation = known.generation.filter(|_| !is_gone);
        }
        // A key that lost its place is in a new shard, if anywhere: it is suspected with all that the shard reaches.
        below.places.retain(|_, place| place.at.map_or(has_sealed, |(shard, _)| !is_gone[shard as usize]));
        let is_new = |shard: &usize| self.below.generation_of(&shards[*shard].path).is_none();
        let new: Vec<usize> = (0..shards.len()).filter(is_new).collect();
        let is_known = |id: &u32| !new.is_empty() && self.series[*id as usize].below_max.is_some();
        let known = (0..self.series.len() as u32).filter(is_known);
        let known = known.map(|id| (id, Arc::clone(&self.series[id as usize].key))).collect();
        Some(News { unknown, known, shards: new })
    }

    /// Notes what was read: the latest time that any layer below holds of each series that was unknown (`i64::MIN`:
    /// none), and the times of the others in shards that were new.
    pub(crate) fn met(&mut self, version: u64, shards: &[Arc<Shard>], latest: &[(u32, i64)], reaches: &[Reach]) {
        for (id, max) in latest {
            self.series[*id as usize].below_max = Some(*max);
            self.suspect_rows(*id, i64::MIN, *max, 0);
        }
        let series = &self.series;
        self.below.unknown.retain(|id| series[*id as usize].below_max.is_none());
        if self.below.version == Some(version) {
            return;
        }
        self.below.version = Some(version);
        self.below.generation += 1;
        let generation = self.below.generation;
        for shard in shards {
            let id = self.below.shard_id(&shard.path.as_str().into());
            self.below.shards[id as usize].generation.get_or_insert(generation);
        }
        for reach in reaches {
            let below_max = &mut self.series[reach.series as usize].below_max;
            *below_max = (*below_max).max(Some(reach.time_max_us));
            self.suspect_rows(reach.series, reach.time_min_us, reach.time_max_us, generation);
        }
    }

    /// Suspects the keys of a series in these times whose place is not known.
    fn suspect_rows(&mut self, id: u32, time_min_us: i64, time_max_us: i64, from: u32) {
        if time_min_us > time_max_us {
            return;
        }
        let series = &self.series[id as usize];
        let start = series.in_order.partition_point(|row| self.key_of(*row).1 < time_min_us);
        let in_order = series.in_order[start..].iter().map(|row| self.key_of(*row).1);
        let late = series.late.range(time_min_us..=time_max_us).map(|(time_us, _)| *time_us);
        let times = in_order.take_while(|time_us| *time_us <= time_max_us).chain(late);
        let times = times.filter(|time_us| !self.below.places.contains_key(&(id, *time_us)));
        let suspects: Vec<(u32, i64, u32)> = times.map(|time_us| (id, time_us, from)).collect();
        self.below.suspects.extend(suspects);
    }

    /// Suspects a key that has just come, if a layer below may hold it.
    pub(super) fn suspect_new_key(&mut self, id: u32, time_us: i64) {
        if self.series[id as usize].below_max.is_some_and(|max| time_us <= max) {
            self.below.suspects.push((id, time_us, 0));
        }
    }

    /// The row of a key has changed: if it was hidden, it no longer is what the layer below shows.
    pub(super) fn key_changed(&mut self, id: u32, time_us: i64) {
        let below = &mut self.below;
        if below.places.get(&(id, time_us)).is_some_and(|place| place.is_hidden)
            && let Some(place) = below.places.remove(&(id, time_us))
        {
            let from = place.at.and_then(|(shard, _)| below.shards[shard as usize].generation).unwrap_or(0);
            below.suspects.push((id, time_us, from));
        }
    }

    /// Keys that a layer below may hold too, oldest request first.
    pub(crate) fn suspects(&self) -> Vec<Suspect> {
        let suspect = |(series, time_us, from): &(u32, i64, u32)| Suspect {
            series: *series,
            key: Arc::clone(&self.series[*series as usize].key),
            time_us: *time_us,
            from: *from,
        };
        self.below.suspects.iter().map(suspect).collect()
    }

    /// The generations of `shards`, all of which were met.
    pub(crate) fn generations(&self, shards: &[Arc<Shard>]) -> Vec<u32> {
        let generation = |shard: &Arc<Shard>| self.below.generation_of(&shard.path).expect("the shard was met");
        shards.iter().map(generation).collect()
    }

    /// True when nothing is left to look up in that version of the layers below.
    pub(crate) fn is_settled_at(&self, version: u64) -> bool {
        self.below.version == Some(version) && self.below.unknown.is_empty() && self.below.suspects.is_empty()
    }

    /// Forgets the first `count` suspects: they have been looked up.
    pub(crate) fn suspects_done(&mut self, count: usize) {
        self.below.suspects.drain(..count);
    }

    /// Notes that a layer below holds the key: completes this memtable's row, or hides it if the two are the same.
    pub(crate) fn settle_key(&mut self, held: &Held) {
        let row = self.find_row(held.series, held.time_us).expect("a suspect's key stays in its memtable");
        if held.is_newer {
            let is_hidden = self.give_way(row, &held.values);
            self.place(held.series, held.time_us, &held.at, is_hidden);
            return;
        }
        let composed = self.compose(row, &held.values, held.is_gone);
        let is_hidden = composed.is_same;
        if !is_hidden {
            self.complete(row, composed);
        }
        self.place(held.series, held.time_us, &held.at, is_hidden);
    }

    /// Gives `row` the `newer` values of a shard; it keeps those of fields that the shard lacks. So it says what the shard
    /// says from now on, wherever the shard's rows go. Returns whether that is all it says.
    fn give_way(&mut self, row: u32, newer: &[FieldValue]) -> bool {
        let slots: Vec<usize> = newer.iter().map(|(name, t, _)| self.slot(name, *t)).collect();
        let mut values = self.cells(row);
        let mut is_changed = false;
        for (slot, (_, _, newer)) in slots.iter().zip(newer) {
            if !values[*slot].as_ref().is_some_and(|own| same(own.value(), newer.value())) {
                values[*slot] = Some(newer.clone());
                is_changed = true;
            }
        }
        let own = values.iter().filter(|value| value.is_some()).count();
        let standing = if *self.standing(row) == Standing::Over { Standing::Over } else { Standing::Alone };
        if is_changed {
            self.replace_row(row, &values, standing);
        } else {
            self.set_standing(row, standing);
        }
        own == newer.len()
    }

    pub(super) fn place(&mut self, series: u32, time_us: i64, at: &Below, is_hidden: bool) {
        let at = match at {
            Below::Sealed => None,
            Below::Shard(path, ordinal) => Some((self.below.shard_id(path), *ordinal)),
        };
        self.below.places.insert((series, time_us), Place { at, is_hidden });
    }

    /// Gives a row what it took from below.
    pub(super) fn complete(&mut self, row: u32, composed: Composed) {
        if composed.is_filled {
            self.replace_row(row, &composed.values, composed.standing);
        } else {
            self.set_standing(row, composed.standing);
        }
    }

    /// What `row` makes of a row below that has `older`, or was removed there.
    pub(super) fn compose(&mut self, row: u32, older: &[FieldValue], is_gone: bool) -> Composed {
        let slots: Vec<usize> = older.iter().map(|(name, t, _)| self.slot(name, *t)).collect();
        let mut values = self.cells(row);
        let standing = self.standing(row).clone();
        let (removed, takes) = match &standing {
            Standing::Over => (&[][..], true),
            Standing::Without { slots, .. } => (&slots[..], true),
            Standing::Alone | Standing::Gone => (&[][..], false),
        };
        if is_gone || standing == Standing::Gone {
            // Fields taken from a row that is not there leave it so.
            let standing = if standing.is_row() { Standing::Alone } else { Standing::Gone };
            let is_same = is_gone && standing == Standing::Gone;
            return Composed { values, standing, is_filled: false, is_same };
        }
        let mut own = values.iter().filter(|value| value.is_some()).count();
        let (mut is_filled, mut differs) = (false, false);
        for (slot, (_, _, older)) in slots.iter().zip(older) {
            match &values[*slot] {
                Some(newer) => {
                    own -= 1;
                    differs |= !same(newer.value(), older.value());
                }
                None if takes && !removed.contains(&(*slot as u32)) => {
                    values[*slot] = Some(older.clone());
                    is_filled = true;
                }
                None => differs = true,
            }
        }
        let is_same = !differs && own == 0;
        let standing = if standing == Standing::Over { standing } else { Standing::Alone };
        Composed { values, standing, is_filled, is_same }
    }

    /// What this memtable holds of a key, for the memtable above. A hidden row is none: the layer below that hides it
    /// is what readers see, so that is where the key lies.
    pub(crate) fn lookup(&self, key: &SeriesKey, time_us: i64) -> Option<(bool, Vec<FieldValue>)> {
        let id = self.find_series(key)?;
        let row = self.find_row(id, time_us)?;
        let is_hidden = self.below.places.get(&(id, time_us)).is_some_and(|place| place.is_hidden);
        match self.standing(row) {
            _ if is_hidden => None,
            Standing::Gone => Some((true, Vec::new())),
            // No layer below has the row, so there is none that could lose fields.
            Standing::Without { is_row: false, .. } => None,
            _ => Some((false, self.values(row))),
        }
    }

    /// The row of a key.
    pub(crate) fn row_of(&self, key: &SeriesKey, time_us: i64) -> Option<u32> {
        self.find_row(self.find_series(key)?, time_us)
    }

    /// Rows that are left out because a layer below shows the same.
    pub(super) fn hidden(&self) -> impl Iterator<Item = u32> {
        let hidden = self.below.places.iter().filter(|(_, place)| place.is_hidden);
        hidden.map(|((series, time_us), _)| self.find_row(*series, *time_us).expect("a place's key stays"))
    }

    /// Keys that a layer below holds with other values: series, time, and where.
    pub(crate) fn collisions(&self) -> impl Iterator<Item = (&Arc<SeriesKey>, i64, Below)> {
        let collisions = self.below.places.iter().filter(|(_, place)| !place.is_hidden);
        collisions
            .map(|((series, time_us), place)| (&self.series[*series as usize].key, *time_us, self.below_of(place)))
    }

    fn below_of(&self, place: &Place) -> Below {
        match place.at {
            None => Below::Sealed,
            Some((shard, ordinal)) => Below::Shard(Arc::clone(&self.below.shards[shard as usize].path), ordinal),
        }
    }

    /// Collisions with shards: the key as series id and time, the shard's path, and the ordinal there.
    pub(super) fn shard_collisions(&self) -> impl Iterator<Item = ((u32, i64), &Arc<str>, u32)> {
        self.below.places.iter().filter(|(_, place)| !place.is_hidden).filter_map(|(key, place)| {
            let (shard, ordinal) = place.at?;
            Some((*key, &self.below.shards[shard as usize].path, ordinal))
        })
    }

    /// How many keys each shard holds with other values.
    pub(crate) fn collisions_by_shard(&self) -> HashMap<Arc<str>, u64> {
        let mut counts = HashMap::new();
        for (_, path, _) in self.shard_collisions() {
            *counts.entry(Arc::clone(path)).or_default() += 1;
        }
        counts
    }

    /// For each of these shards, which row of this memtable takes the place of which ordinal; `None` for a removed one.
    pub(crate) fn replacements(&self, paths: &HashSet<Arc<str>>) -> HashMap<Arc<str>, Vec<(u32, Option<u32>)>> {
        let mut replacements: HashMap<Arc<str>, Vec<(u32, Option<u32>)>> = HashMap::new();
        for ((series, time_us), path, ordinal) in self.shard_collisions().filter(|(_, path, _)| paths.contains(*path)) {
            let row = self.find_row(series, time_us).expect("a place's key stays");
            let row = self.standing(row).is_row().then_some(row);
            replacements.entry(Arc::clone(path)).or_default().push((ordinal, row));
        }
        replacements.values_mut().for_each(|rows| rows.sort_unstable());
        replacements
    }

    /// All rows that collide with a shard.
    pub(crate) fn colliding_rows(&self) -> HashSet<u32> {
        let row = |((series, time_us), _, _)| self.find_row(series, time_us).expect("a place's key stays");
        self.shard_collisions().map(row).collect()
    }
}
