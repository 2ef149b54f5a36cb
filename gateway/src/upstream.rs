//! The upstreams: the LLM providers' endpoints, the connections to them, and the choice among them.

pub mod error;

pub mod body;
mod http1;
mod http2;
mod pool;
mod tls;
mod wake_flag;

pub mod endpoint;

pub mod model_list;
pub mod registry;

pub mod dispatch;
