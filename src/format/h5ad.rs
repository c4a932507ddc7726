//! stub until the branch lands
use super::*;
pub struct H5ad;
impl H5ad { pub fn new(_: &Table) -> H5ad { H5ad } }
impl Format for H5ad {
    fn layout(&self, _: &Batch<'_>) -> Layout { Layout { size: 0, spans: vec![] } }
    fn finish(&self, _: &Batch<'_>, _: &Layout, _: &mut [u8]) {}
}
