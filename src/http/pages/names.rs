//! Renders names safely. Senders of visits choose names freely, and some characters make a name look like another one
//! or reverse the text beside it.

use std::borrow::Cow;

use maud::{Markup, html};

/// Renders a name isolated from the text around it, so that a right-to-left name does not move what follows.
pub fn name(name: &str) -> Markup {
    html! { bdi { (visible(name)) } }
}

/// Escapes each invisible character, for example as `\u{202E}`.
pub fn visible(text: &str) -> Cow<'_, str> {
    // Fast path for most names.
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut visible = String::with_capacity(text.len());
    // Whether the character that a joiner would modify is ASCII.
    let mut base_is_ascii = true;
    for character in text.chars() {
        if is_invisible(character) || (is_joiner(character) && base_is_ascii) {
            visible.push_str(&format!("\\u{{{:X}}}", u32::from(character)));
            continue;
        }
        visible.push(character);
        if !is_joiner(character) {
            base_is_ascii = character.is_ascii();
        }
    }
    Cow::Owned(visible)
}

/// Returns whether `character` modifies the previous one, as in an emoji, a flag or Persian. It does not modify ASCII.
const fn is_joiner(character: char) -> bool {
    matches!(character, '\u{200c}' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}' | '\u{e0020}'..='\u{e007f}')
}

/// Returns whether `character` has Unicode's property `Default_Ignorable_Code_Point` and is not a [joiner](is_joiner),
/// or is a space that looks like another one, a line separator, or a character that XML forbids.
const fn is_invisible(character: char) -> bool {
    matches!(
        character,
        // Spaces other than the ideographic space, which is as wide as its neighbours.
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200b}' | '\u{2028}' | '\u{2029}' | '\u{202f}' | '\u{205f}'
        // Direction marks.
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        // Ignored where they are not supported.
        | '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0d}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e001f}'
        | '\u{e0080}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::ascii("a b & <c>", "a b & <c>")]
    #[case::other_scripts("спорт 音楽 كرة", "спорт 音楽 كرة")]
    #[case::ideographic_space("音\u{3000}楽", "音\u{3000}楽")]
    #[case::emoji("⚽\u{fe0f}👩\u{200d}🚀", "⚽\u{fe0f}👩\u{200d}🚀")]
    #[case::persian("می\u{200c}خواهم", "می\u{200c}خواهم")]
    #[case::reversed("news\u{202e}stropS", "news\\u{202E}stropS")]
    #[case::isolated("\u{2067}abc\u{2069}", "\\u{2067}abc\\u{2069}")]
    #[case::mark("sports\u{200e}", "sports\\u{200E}")]
    #[case::arabic_mark("sports\u{61c}", "sports\\u{61C}")]
    #[case::zero_width_space("spo\u{200b}rts", "spo\\u{200B}rts")]
    #[case::joiner_after_ascii("sports\u{200d}", "sports\\u{200D}")]
    #[case::selector_after_ascii("sports\u{fe0f}", "sports\\u{FE0F}")]
    #[case::joiner_alone("\u{200d}", "\\u{200D}")]
    #[case::joiners_after_ascii("a\u{200d}\u{fe0f}b", "a\\u{200D}\\u{FE0F}b")]
    #[case::flag("\u{1f3f4}\u{e0067}\u{e0062}\u{e007f}", "\u{1f3f4}\u{e0067}\u{e0062}\u{e007f}")]
    #[case::tags_after_ascii("ab\u{e0041}\u{e0042}", "ab\\u{E0041}\\u{E0042}")]
    #[case::byte_order_mark("\u{feff}sports", "\\u{FEFF}sports")]
    #[case::soft_hyphen("sp\u{ad}orts", "sp\\u{AD}orts")]
    #[case::no_break_space("a\u{a0}b", "a\\u{A0}b")]
    #[case::hangul_filler("a\u{3164}b", "a\\u{3164}b")]
    #[case::forbidden_in_xml("a\u{fffe}\u{ffff}b", "a\\u{FFFE}\\u{FFFF}b")]
    #[case::line("a\u{2028}b", "a\\u{2028}b")]
    fn visible_escapes_invisible_characters(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(visible(text), shown);
        assert_eq!(name("x").into_string(), "<bdi>x</bdi>");
    }
}
