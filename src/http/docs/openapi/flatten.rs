//! Flattened members in schemas.

use utoipa::openapi::schema::Schema;
use utoipa::openapi::{Components, Object, RefOr};

/// Replaces `allOf`, which the derive macro generates for flattened members, with a plain object.
pub fn flatten_members(components: &mut Components) {
    /// The flattened types, with the member that their members follow or precede.
    const FLATTENED: [(&str, Neighbor); 2] =
        [("Accuracy", Neighbor::After("count")), ("AsOf", Neighbor::Before("buckets"))];
    let parts = FLATTENED.map(|(name, neighbor)| (name, neighbor, components.schemas.remove(name).map(object)));
    for schema in components.schemas.values_mut() {
        let RefOr::T(Schema::AllOf(all_of)) = schema else { continue };
        let mut flat = all_of.items.pop().map(object).unwrap_or_default();
        flat.description = all_of.description.take();
        for item in &all_of.items {
            let (name, is_required) = flattened(item);
            let part = parts.iter().find(|(of_part, ..)| *of_part == name);
            let (_, neighbor, Some(part)) = part.expect("the type is one of these") else { continue };
            if is_required {
                // In the order of the members in the answer.
                let index = neighbor.index_in(&flat.required);
                flat.required.splice(index..index, part.required.clone());
            }
            flat.properties.extend(part.properties.clone());
        }
        *schema = flat.into();
    }
}

/// The place of flattened members.
enum Neighbor {
    After(&'static str),
    Before(&'static str),
}

impl Neighbor {
    /// Returns the index of the members among `names`. Without the neighbor, they are the last ones.
    fn index_in(&self, names: &[String]) -> usize {
        let index = |neighbor: &str| names.iter().position(|name| name == neighbor);
        let index = match self {
            Self::After(neighbor) => index(neighbor).map(|index| index + 1),
            Self::Before(neighbor) => index(neighbor),
        };
        index.unwrap_or(names.len())
    }
}

/// Returns the name of a flattened type, and whether it is always there.
fn flattened(schema: &RefOr<Schema>) -> (&str, bool) {
    match schema {
        RefOr::Ref(reference) => (reference.ref_location.rsplit('/').next().unwrap_or_default(), true),
        RefOr::T(Schema::OneOf(optional)) => {
            let target = optional.items.iter().find(|item| matches!(item, RefOr::Ref(_)));
            (flattened(target.expect("an optional type has a name")).0, false)
        }
        RefOr::T(_) => unreachable!("a flattened type has a name"),
    }
}

/// Returns the schema of a struct.
pub fn object(schema: RefOr<Schema>) -> Object {
    match schema {
        RefOr::T(Schema::Object(object)) => object,
        _ => unreachable!("the schema of a struct is an object"),
    }
}
