//! What the limits of one call come to together.
//!
//! Pure. Plain limits refuse by themselves, limits in quota mode only all together, the others never.

use crate::limits::Mode;

/// Gathers how each limit of a call stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    enforced_over: bool,
    shadow_over: bool,
    quotas: u32,
    quotas_over: u32,
}

impl Verdict {
    /// Takes one limit into account.
    pub fn note(&mut self, mode: Mode, over: bool) {
        match mode {
            Mode::Enforce => self.enforced_over |= over,
            Mode::Shadow => self.shadow_over |= over,
            Mode::Quota => {
                self.quotas += 1;
                self.quotas_over += u32::from(over);
            }
            Mode::Candidate => {}
        }
    }

    /// Whether the call is refused.
    pub fn refuses(&self) -> bool {
        self.enforced_over || (self.quotas > 0 && self.quotas == self.quotas_over)
    }

    /// Whether a limit that only watches is passed.
    pub fn is_shadowed(&self) -> bool {
        self.shadow_over
    }
}
