//! Answers gateways that ask whether the stream holds an event: the permissions of a gateway need not include reading
//! the stream.

use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::{Client, Message, jetstream};
use futures_util::StreamExt as _;
use shared::stream_check::{QUEUE, SUBJECT, StreamCheckRequest, StreamCheckResponse};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Answers requests, one after the other, until told to stop. A malformed request gets no answer.
pub async fn answer_requests(client: Client, stop: CancellationToken) -> Result<(), async_nats::SubscribeError> {
    let mut requests = client.queue_subscribe(SUBJECT, QUEUE.to_owned()).await?;
    while let Some(Some(request)) = stop.run_until_cancelled(requests.next()).await {
        if let Some(answered) = stop.run_until_cancelled(answer(&client, &request)).await
            && let Err(error) = answered
        {
            tracing::warn!(%error, "a gateway's question about the stream could not be answered");
        }
    }
    Ok(())
}

async fn answer(client: &Client, request: &Message) -> Result<(), async_nats::PublishError> {
    let Some(reply) = request.reply.clone() else { return Ok(()) };
    let Ok(question) = serde_json::from_slice::<StreamCheckRequest>(&request.payload) else { return Ok(()) };
    let response = serde_json::to_vec(&look_up(client, question).await).unwrap_or_default();
    client.publish(reply, response.into()).await
}

async fn look_up(client: &Client, question: StreamCheckRequest) -> StreamCheckResponse {
    let Ok(stream) = jetstream::new(client.clone()).get_stream_no_info(shared::stream::NAME).await else {
        return StreamCheckResponse::Unknown;
    };
    match stream.get_raw_message(question.sequence).await {
        Ok(message) => {
            let id = message.headers.get(shared::envelope::ID);
            StreamCheckResponse::compare(question, id.and_then(|id| id.as_str().parse::<Uuid>().ok()))
        }
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
            StreamCheckResponse::compare(question, None)
        }
        Err(_) => StreamCheckResponse::Unknown,
    }
}
