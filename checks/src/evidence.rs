//! The figures that the documents quote, rendered from the ledgers that the commands write.
