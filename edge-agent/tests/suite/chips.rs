//! Chips on a bus that a test plays, and drivers that read them.

mod bme280;
mod bmp180;
mod bus;
mod scan;
mod sht3x;
