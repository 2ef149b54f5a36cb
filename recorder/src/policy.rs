//! Pure decisions, without input or output: the size limit of a batch, the conditions under which nothing is recorded, the
//! reaction to a failed write, and the detection of lost gateways. Functions take clock readings as arguments.

pub mod batch;
pub mod blockage;
pub mod disposition;
pub mod failure_detector;
pub mod overdue_chats;
