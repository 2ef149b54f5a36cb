//! Upstreams: the endpoints of LLM providers, the connections to the endpoints, and the choice of an endpoint for each
//! request.

pub mod error;

pub mod body;
mod http1;
mod http2;
mod pool;
pub mod request_body;
mod tls;
mod tunnel;
mod wake_flag;

pub mod endpoint;

pub mod model_list;
pub mod registry;

mod error_body;
mod first_bytes;

pub mod dispatch;
