//! The lab: guests for the tests (an appliance, blades, the cables between them).
