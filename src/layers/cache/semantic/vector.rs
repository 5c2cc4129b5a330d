//! Vectors of length one, so that their product is the cosine between them.

use std::sync::Arc;

use serde::Deserialize;

/// More dimensions than any model has.
const MOST_DIMENSIONS: usize = 8192;
/// Products that are summed side by side, which the compiler makes wide instructions of.
const LANES: usize = 16;

#[derive(Deserialize)]
struct Reply {
    result: Data,
}

#[derive(Deserialize)]
struct Data {
    data: Vec<Vec<f32>>,
}

/// The one vector of a reply on the native route.
pub(super) fn read(body: &[u8]) -> Option<Arc<[f32]>> {
    let mut reply: Reply = serde_json::from_slice(body).ok()?;
    let vector = reply.result.data.pop().filter(|_| reply.result.data.is_empty())?;
    unit(vector)
}

/// `None` where it has no direction.
pub(super) fn unit(mut vector: Vec<f32>) -> Option<Arc<[f32]>> {
    let length = dot(&vector, &vector).sqrt();
    let is_one = (1..=MOST_DIMENSIONS).contains(&vector.len()) && length.is_finite() && length > 0.0;
    vector.iter_mut().for_each(|figure| *figure /= length);
    is_one.then(|| vector.into())
}

/// The cosine of two of the same length; nothing where their lengths differ.
pub(super) fn cosine(one: &[f32], other: &[f32]) -> f32 {
    if one.len() == other.len() { dot(one, other) } else { 0.0 }
}

fn dot(one: &[f32], other: &[f32]) -> f32 {
    let (ones, others) = (one.chunks_exact(LANES), other.chunks_exact(LANES));
    let rest: f32 = ones.remainder().iter().zip(others.remainder()).map(|(a, b)| a * b).sum();
    let mut sums = [0.0_f32; LANES];
    for (one, other) in ones.zip(others) {
        for (sum, (a, b)) in sums.iter_mut().zip(one.iter().zip(other)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cosine_is_one_of_the_same_and_none_of_what_cannot_be_compared() {
        let vector = |by: f32| unit((0_u8..37).map(|n| (f32::from(n) * by).sin()).collect()).unwrap();
        assert!((cosine(&vector(0.3), &vector(0.3)) - 1.0).abs() < 1e-5);
        let far = cosine(&vector(0.3), &vector(1.9));
        assert!(far.abs() < 0.9, "{far}");
        assert!(cosine(&vector(0.3), &unit(vec![1.0; 36]).unwrap()).abs() < f32::EPSILON);
        for wrong in [vec![], vec![0.0; 4], vec![f32::NAN, 1.0], vec![f32::INFINITY], vec![1.0; MOST_DIMENSIONS + 1]] {
            assert_eq!(unit(wrong), None);
        }
    }

    #[test]
    fn a_reply_has_one_vector_or_it_is_no_reply() {
        assert_eq!(read(br#"{"result":{"shape":[1,2],"data":[[3,4]]},"success":true}"#), unit(vec![3.0, 4.0]));
        for wrong in
            [&br#"{"result":{"data":[]}}"#[..], br#"{"result":{"data":[[1],[2]]}}"#, b"{}", b"", br#"{"result":null}"#]
        {
            assert_eq!(read(wrong), None);
        }
    }
}
