//! What holds for every object and every text.
