//! Attacks on a running system, a file for each class. Each test names an attack and shows that the system withstands it.

mod operator_endpoints;
