//! A model in the browser.
