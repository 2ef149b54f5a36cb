//! An answer that is told in one piece, because its head says that nothing follows: a server does not ask for the body of
//! such a response, so nobody would see its end come, nor wait for it.

use std::future::poll_fn;
use std::pin::Pin;

use http_body::Body as _;

use super::{Answer, BrokenAnswer};

impl Answer {
    /// All of it, when its end is as durable as the end of any.
    pub async fn whole(mut self) -> Result<Vec<u8>, BrokenAnswer> {
        let mut whole = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
            if let Ok(chunk) = frame?.into_data() {
                whole.extend_from_slice(&chunk);
            }
        }
        Ok(whole)
    }
}
