//! The invariants of a round: compares the record with the clients' observations and the upstream's requests.

use std::collections::{BTreeMap, BTreeSet};

use recorder::projection::chat::{Chat, ChatOutcome};
use recorder::projection::message::Position;
use shared::id::ChatId;

use crate::chaos::clients::{ObservedChat, ObservedEnd};
use crate::oracle::Oracle;
use harness::openai::{Answer, ChatRequest, Usage};
use harness::upstream::ReceivedRequest;

/// Numbers of a round.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChatCounts {
    /// Chats that clients sent.
    pub asked: usize,
    /// Chats with a complete answer.
    pub seen: usize,
    /// Chats that broke off for the client.
    pub broken: usize,
    /// Chats that the client left.
    pub left: usize,
    /// Chats with an error status.
    pub refused: usize,
    /// Chats in the tables.
    pub recorded: usize,
    /// Events in the stream, duplicates included.
    pub events: usize,
}

/// Text of the upstream's answer to a question.
pub fn answer_text(question: &str) -> String {
    format!("As to {question}: as much wood as a woodchuck would, if a woodchuck could chuck wood; hé — 木.")
}

/// Checks all invariants. Returns a line for each violation, and the numbers of the round.
pub fn violations(
    seen: &[ObservedChat],
    served: &[std::sync::Arc<ReceivedRequest>],
    oracle: &Oracle,
) -> (Vec<String>, ChatCounts) {
    let record = Record::read(oracle);
    let mut wrong = record.wrong.clone();
    let mut counts = ChatCounts { asked: seen.len(), recorded: oracle.tables.chats.len(), ..ChatCounts::default() };
    counts.events = oracle.events.len();
    for chat in seen {
        match (chat.status, chat.end) {
            (Some(200), ObservedEnd::Complete) => counts.seen += 1,
            (Some(200) | None, ObservedEnd::Broken) => counts.broken += 1,
            (_, ObservedEnd::Left) => counts.left += 1,
            (Some(_), _) => counts.refused += 1,
            (None, ObservedEnd::Complete) => {}
        }
        wrong.extend(record.contradicts(chat));
    }
    wrong.extend(record.of_the_served(served));
    wrong.extend(sums(oracle));
    (wrong, counts)
}

/// The recorded chats, indexed by question.
struct Record<'a> {
    by_question: BTreeMap<&'a str, ChatId>,
    chats: &'a BTreeMap<ChatId, Chat>,
    answers: BTreeMap<ChatId, &'a str>,
    wrong: Vec<String>,
}

impl<'a> Record<'a> {
    fn read(oracle: &'a Oracle) -> Self {
        let mut by_question = BTreeMap::new();
        let mut wrong = Vec::new();
        let asked = oracle.tables.messages.values().filter(|message| message.position != Position::Assistant);
        for message in asked {
            if let Some(other) = by_question.insert(message.content.as_str(), message.chat_id) {
                wrong.push(format!("{:?} is on the record twice: {other} and {}", message.content, message.chat_id));
            }
        }
        let answered = oracle.tables.messages.values().filter(|message| message.position == Position::Assistant);
        let answers = answered.map(|message| (message.chat_id, message.content.as_str())).collect();
        let unfinished = oracle.tables.chats.values().filter(|chat| chat.ending.is_none());
        wrong.extend(unfinished.map(|chat| format!("{} of {} has no end", chat.chat_id, chat.gateway)));
        Self { by_question, chats: &oracle.tables.chats, answers, wrong }
    }

    /// Compares a client's observation with the record. None without a contradiction.
    fn contradicts(&self, seen: &ObservedChat) -> Option<String> {
        if seen.status != Some(200) || seen.body.is_empty() {
            return None;
        }
        let question = &seen.question;
        let Some(id) = self.by_question.get(question.as_str()) else {
            return Some(format!("{question:?}: {} bytes were seen, and it is not on the record", seen.body.len()));
        };
        if seen.chat.as_deref() != Some(id.to_string().as_str()) {
            return Some(format!("{question:?}: seen as {:?}, recorded as {id}", seen.chat));
        }
        let Some(chat) = self.chats.get(id) else { return Some(format!("{question:?}: {id} has no row")) };
        if chat.user_id.as_str() != seen.user {
            return Some(format!("{question:?}: recorded for {}, asked by {}", chat.user_id, seen.user));
        }
        if !seen.saw_the_end() {
            return None;
        }
        if seen.stream && !seen.body.ends_with(harness::openai::DONE) {
            return Some(format!("{question:?}: the stream ended cleanly without its end"));
        }
        let Some(ending) = &chat.ending else { return Some(format!("{question:?}: its end was seen, not recorded")) };
        if ending.outcome != ChatOutcome::Completed {
            return Some(format!("{question:?}: its end was seen, recorded is {:?}", ending.outcome));
        }
        let recorded = self.answers.get(id).copied().unwrap_or_default();
        if recorded != seen.text() {
            return Some(format!("{question:?}: seen {:?}, recorded {recorded:?}", seen.text()));
        }
        let expected = usage_of(question);
        let (prompt, completion) = (ending.usage.prompt_tokens, ending.usage.completion_tokens);
        let is_right = prompt == i64::try_from(expected.prompt_tokens).ok()
            && completion == i64::try_from(expected.completion_tokens).ok();
        (!is_right)
            .then(|| format!("{question:?}: recorded {prompt:?} and {completion:?} tokens, expected {expected:?}"))
    }

    /// Requests that the upstream served and the record lacks.
    fn of_the_served(&self, served: &[std::sync::Arc<ReceivedRequest>]) -> Vec<String> {
        let questions: BTreeSet<_> =
            served.iter().filter_map(|received| Some(ChatRequest::parse(&received.body).ok()?.question())).collect();
        let unknown = questions.iter().filter(|question| !self.by_question.contains_key(question.as_str()));
        unknown.map(|question| format!("{question:?} reached the upstream and is not on the record")).collect()
    }
}

/// Compares the sums of `usage_stats` with the chats.
fn sums(oracle: &Oracle) -> Vec<String> {
    let mut wrong = Vec::new();
    let completed = |chat: &&Chat| chat.ending.as_ref().is_some_and(|ending| ending.outcome == ChatOutcome::Completed);
    let chats = oracle.tables.chats.values();
    let (calls, successes) =
        (chats.clone().filter(|chat| chat.ending.is_some()).count(), chats.filter(completed).count());
    let stats = oracle.tables.usage_stats.values();
    let counted: i64 = stats.clone().map(|day| day.api_calls).sum();
    let succeeded: i64 = stats.map(|day| day.successful_calls).sum();
    if i64::try_from(calls) != Ok(counted) || i64::try_from(successes) != Ok(succeeded) {
        wrong.push(format!("{calls} calls, {successes} of them successes; counted are {counted} and {succeeded}"));
    }
    wrong
}

fn usage_of(question: &str) -> Usage {
    let request = ChatRequest {
        model: harness::upstream::MODEL.into(),
        messages: vec![harness::openai::Message { role: "user".into(), content: question.into() }],
        stream: None,
        stream_options: None,
    };
    Answer::to(&request, &answer_text(question)).usage
}
