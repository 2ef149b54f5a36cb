//! Places of a resource, with a maximum in all and a maximum for each holder, so that one user cannot take all places.
//!
//! A cap for each holder and not a queue with weights: a request over the cap is refused at once with a clear error, costs
//! nothing, and no holder waits for the requests of another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places of a resource, and their holders.
#[derive(Debug)]
pub struct FairShare {
    total: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_holder: HashMap<Box<str>, usize>,
}

/// The reason why a place was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// The holder has its maximum of places.
    HolderHasShare,
    /// All places are taken.
    AllTaken,
}

/// A place. Dropping the place frees the place.
#[derive(Debug)]
pub struct Place {
    share: Arc<FairShare>,
    holder: Box<str>,
}

impl FairShare {
    /// Creates `total` free places.
    pub fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, taken: Mutex::default() })
    }

    /// Takes a place for a holder, such as a user, that may have at most `limit` places.
    pub fn take(self: &Arc<Self>, holder: &str, limit: usize) -> Result<Place, NoPlace> {
        let mut taken = self.taken();
        let held = taken.by_holder.get(holder).copied().unwrap_or(0);
        if taken.all >= self.total {
            return Err(NoPlace::AllTaken);
        }
        if held >= limit {
            return Err(NoPlace::HolderHasShare);
        }
        taken.all += 1;
        taken.by_holder.insert(holder.into(), held + 1);
        Ok(Place { share: Arc::clone(self), holder: holder.into() })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.share.taken();
        taken.all = taken.all.saturating_sub(1);
        if let Some(held) = taken.by_holder.get_mut(&self.holder) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                taken.by_holder.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_gets_no_more_than_its_share_and_all_no_more_than_there_are() {
        let share = FairShare::new(3);
        let take = |holder| share.take(holder, 2);
        let (first, second) = (take("ann").unwrap(), take("ann").unwrap());
        assert_eq!(take("ann").err(), Some(NoPlace::HolderHasShare));
        let third = take("bob").unwrap();
        assert_eq!(take("bob").err(), Some(NoPlace::AllTaken));
        assert_eq!(take("ann").err(), Some(NoPlace::AllTaken), "nobody has a place, so the share is not the reason");
        drop(first);
        let fourth = take("ann").unwrap();
        assert_eq!(take("eve").err(), Some(NoPlace::AllTaken));
        drop((second, third, fourth));
        assert!(share.taken().by_holder.is_empty());
        assert_eq!(share.taken().all, 0);
    }
}
