//! What a blade is told when it asks: the wire to sheath-bootd, the iPXE scripts, the HTTP server.

pub mod wire;
