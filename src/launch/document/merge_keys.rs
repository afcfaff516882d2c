//! YAML's merge key `<<`. Pure: it rearranges a value that was read.

use serde_json::Value;

use crate::launch::spec::{Object, kind_of};

/// Replaces each `<<: *base` by the entries of `base` that the object does not have itself. The parser has bounded
/// the depth already.
pub(super) fn apply(value: &mut Value) -> Result<(), String> {
    match value {
        Value::Array(list) => list.iter_mut().try_for_each(apply),
        Value::Object(object) => {
            object.values_mut().try_for_each(apply)?;
            if object.contains_key("<<") {
                *object = merged(object)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn merged(object: &Object) -> Result<Object, String> {
    let mut result = Object::new();
    for (key, value) in object {
        if key != "<<" {
            result.insert(key.clone(), value.clone());
            continue;
        }
        let bases = match value {
            Value::Array(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        for base in bases {
            let base = base.as_object().ok_or_else(|| {
                format!("the merge key `<<` takes an object, not {}", kind_of(base))
            })?;
            for (key, value) in base {
                if !object.contains_key(key) && !result.contains_key(key) {
                    result.insert(key.clone(), value.clone());
                }
            }
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use crate::launch::document::parse;

    fn shown(text: &str) -> String {
        parse(text, "f").expect("a good document").to_string()
    }

    fn error(text: &str) -> String {
        parse(text, "f.yaml").expect_err("a bad document").message
    }

    #[test]
    fn merge_keys_give_way_to_what_is_written() {
        assert_eq!(
            shown("base: &b {cpus: 1.50, m: 1g}\nq:\n  rm: true\n  <<: *b\n  m: 2g"),
            r#"{"base":{"cpus":1.50,"m":"1g"},"q":{"rm":true,"cpus":1.50,"m":"2g"}}"#
        );
        assert_eq!(
            shown("<<: [{a: 1}, {a: 2, b: 2}]\nc: 3"),
            r#"{"a":1,"b":2,"c":3}"#
        );
        assert_eq!(
            error("<<: 5"),
            "f.yaml: the merge key `<<` takes an object, not a number"
        );
    }
}
