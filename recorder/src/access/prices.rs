//! Publishing price lists and repricings. Each is an event; recorders write the tables `price_lists` and `repricings` from the events.

use shared::event::{CostsRepriced, Event, PricesPublished};
use shared::id::{ChangeId, UserId};
use shared::prices::catalogue::Catalogue;
use sqlx::postgres::PgPool;
use time::OffsetDateTime;
use uuid::Uuid;

use super::publication::{publish, publish_large};
use crate::store::price_lists;

/// A list for publication, which was read and checked.
#[derive(Debug)]
pub struct NewList {
    /// The layer: a name that [`is_layer_name`](shared::prices::price_book::is_layer_name) accepts.
    pub layer: String,
    /// The time from which the list is in force. None: from the publication on.
    pub from: Option<OffsetDateTime>,
    /// The time from which the list is not in force any more.
    pub until: Option<OffsetDateTime>,
    /// The bytes of the list.
    pub list: String,
    /// The list that was read from the bytes.
    pub catalogue: Catalogue,
}

/// Publishes a list. Returns the event after the broker has acknowledged it.
pub async fn publish_list(
    client: &async_nats::Client,
    pool: &PgPool,
    by: &UserId,
    new: NewList,
) -> anyhow::Result<PricesPublished> {
    let published_at = shared::event::now();
    let event = PricesPublished {
        change_id: next_change(pool).await?,
        layer: new.layer,
        in_force_from: new.from.unwrap_or(published_at),
        in_force_until: new.until,
        published_at,
        published_by: by.clone(),
        sha256: new.catalogue.sha256().to_owned(),
        size: new.list.len() as u64,
        list: new.list,
        restored: None,
    };
    publish_large(client, &Event::PricesPublished(Box::new(event.clone()))).await?;
    Ok(event)
}

/// Has the costs of a span of time computed again. Returns the event after the broker has acknowledged it.
pub async fn publish_repricing(
    client: &async_nats::Client,
    pool: &PgPool,
    by: &UserId,
    since: OffsetDateTime,
    until: Option<OffsetDateTime>,
) -> anyhow::Result<CostsRepriced> {
    let repriced_at = shared::event::now();
    let until = until.unwrap_or(repriced_at);
    let change_id = next_change(pool).await?;
    let event = CostsRepriced { change_id, since, until, repriced_at, repriced_by: by.clone(), restored: None };
    publish(client, &Event::CostsRepriced(Box::new(event.clone()))).await?;
    Ok(event)
}

/// Returns an id greater than that of each recorded change, also if the clock was set back.
async fn next_change(pool: &PgPool) -> Result<ChangeId, sqlx::Error> {
    let last = price_lists::last_change(pool).await?;
    Ok(ChangeId::after(last.unwrap_or(Uuid::nil())))
}
