//! What a certificate authority does with its key: reading requests, signing certificates, following itself.
//!
//! Who may have which certificate is decided elsewhere. What stands in a certificate is decided here alone: of a
//! request only the public key is taken, so nobody can ask for a name, a use or a life.

mod request;
mod root;
mod seal;
mod succession;

pub use request::{Request, RequestFault};
pub use root::{Issued, Profile, Root, RootFault};
pub use seal::{SealFault, WrappingKey};
pub use succession::{Reign, Succession, succession};
