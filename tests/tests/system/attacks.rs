//! Attacks on a running system, a file for each class. Each test names an attack and shows that the system withstands it.

mod chat_places;
mod conversation_probing;
mod deleted_conversations;
mod guessing;
mod logs;
mod operator_endpoints;
mod searches;
mod session_cookies;
mod user_rates;
