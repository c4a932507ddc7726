//! Chunks with their axes stored in another order.

/// Axis i of the stored elements is axis `order[i]` of the array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transpose {
    /// Shape of the array.
    pub shape: Vec<usize>,
    /// A permutation of the axes.
    pub order: Vec<usize>,
    pub size: usize,
}

impl Transpose {
    /// Copies `input` to `out` in the array's order.
    pub fn decode(&self, input: &[u8], out: &mut [u8]) {
        let axes = self.shape.len();
        // The distance of stored elements for one step along each axis of the array.
        let mut strides = vec![0; axes];
        let mut stride = 1;
        for &axis in self.order.iter().rev() {
            strides[axis] = stride;
            stride *= self.shape[axis];
        }
        let mut index = vec![0; axes];
        let mut from = 0;
        for place in out.chunks_exact_mut(self.size.max(1)) {
            let at = from * self.size;
            if let Some(element) = input.get(at..at + self.size) {
                place.copy_from_slice(element);
            }
            for axis in (0..axes).rev() {
                index[axis] += 1;
                from += strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                from -= strides[axis] * self.shape[axis];
                index[axis] = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_of_three_axes() {
        let shape = [2, 3, 4];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut stored = Vec::new();
            let [a, b, c] = order.map(|axis| shape[axis]);
            for i in 0..a {
                for j in 0..b {
                    for k in 0..c {
                        let mut at = [0; 3];
                        at[order[0]] = i;
                        at[order[1]] = j;
                        at[order[2]] = k;
                        stored.extend([((at[0] * 3 + at[1]) * 4 + at[2]) as u8, 7]);
                    }
                }
            }
            let mut out = vec![0; 48];
            Transpose { shape: shape.to_vec(), order: order.to_vec(), size: 2 }.decode(&stored, &mut out);
            assert!(out.chunks(2).enumerate().all(|(at, element)| element == [at as u8, 7]), "{order:?}");
        }
    }
}
