//! Sheath turns a Linux storage box into a blade appliance.
