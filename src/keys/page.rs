//! Recovery phrases and shares on paper: a page of HTML that needs nothing
//! else (the QR code is SVG within it), and the same as plain text.

use super::phrase::RecoveryPhrase;
use super::shares::Share;
use super::words::Words;
use crate::base::ArchiveId;
use crate::base::calendar::rfc3339_seconds;
use qrcode::{Color, EcLevel, QrCode};
use std::fmt::Write as _;
use zeroize::Zeroizing;

/// Columns of words in plain text.
const COLUMNS: usize = 4;
/// Width of plain text, characters.
const WIDTH: usize = 76;
/// Longest name of an archive that is printed, characters.
const MAX_NAME: usize = 120;
/// Room for a page as text and as HTML, bytes: more than any has, so that no
/// half-written copy stays behind in memory.
const TEXT_ROOM: usize = 8 << 10;
const HTML_ROOM: usize = 64 << 10;
/// White modules around a QR code (ISO/IEC 18004: at least four).
const QUIET: usize = 4;

const STYLE: &str = "\
@page { size: A4; margin: 18mm }
* { box-sizing: border-box }
body { margin: 0; color: #000; background: #fff; font: 11pt/1.45 sans-serif }
section { max-width: 174mm; margin: 0 auto; padding: 6mm 0; break-after: page; break-inside: avoid }
section:last-child { break-after: auto }
h1 { font-size: 20pt; margin: 0 0 4mm }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 1mm 5mm; margin: 0 0 4mm }
dt { font-weight: bold }
dd { margin: 0; overflow-wrap: anywhere }
ol { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1.5mm 0; margin: 4mm 0; padding: 4mm 4mm 4mm 12mm; \
border: 0.4mm solid #000; font: 12pt monospace }
svg { display: block; width: 64mm; height: 64mm; margin: 2mm 0 }
code { font: 9pt monospace; overflow-wrap: anywhere }
p { margin: 0 0 3mm }
";

/// What a page says of the archive.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The archive.
    pub archive: ArchiveId,
    /// What its owner calls it.
    pub name: &'a str,
    /// The day: seconds since 1970-01-01 UTC.
    pub date: i64,
}

/// One sheet of paper. It is as secret as what stands on it.
#[derive(Debug)]
pub struct Sheet {
    title: String,
    facts: Vec<(&'static str, String)>,
    what: String,
    how: String,
    words: Words,
    /// What the QR code holds.
    code: Zeroizing<String>,
}

impl Sheet {
    /// The sheet of a recovery phrase. Its QR code holds the words.
    pub fn of_phrase(phrase: &RecoveryPhrase, about: &About<'_>) -> Self {
        Self {
            title: "BlockFrame recovery phrase".into(),
            facts: about.facts(),
            what: "These 24 words open the encrypted archive named above, alone and completely. They help when the \
                   passphrase is forgotten or the key file is lost. Who reads them can read the archive: keep this \
                   paper where nobody else comes, and away from the disks of the archive."
                .into(),
            how:
                "When blockframe asks for the passphrase, type the words in their order, with spaces between them. Or \
                  put them into a file and name it: blockframe --recovery-phrase-file FILE. The file may hold this \
                  whole page too. Numbers, capital letters and line breaks do not matter. The QR code holds the words."
                    .into(),
            words: phrase.words(),
            code: phrase.code(),
        }
    }

    /// The sheet of a share.
    pub fn of_share(share: &Share, about: &About<'_>) -> Self {
        let (index, threshold, shares) = (share.index(), share.quorum().threshold(), share.quorum().shares());
        let mut facts = about.facts();
        facts.extend([
            ("Share", format!("{index} of {shares}")),
            ("Needed", format!("any {threshold} of the {shares} shares")),
            ("Set", format!("{} (only shares of one set belong together)", share.set())),
            ("Held by", "______________________________".into()),
        ]);
        Self {
            title: format!("BlockFrame key share {index} of {shares}"),
            facts,
            what: format!(
                "This is one of {shares} shares of a key to the encrypted archive named above. Any {threshold} of them \
                 together open it completely; with fewer, nothing at all can be learnt about the key. Give every share \
                 to another person or place, and never keep {threshold} of them together."
            ),
            how: format!(
                "Bring {threshold} shares together. Give blockframe one file for each: \
                 blockframe --share-file share-{index}-of-{shares}.txt --share-file ... and so on; or type the 32 words \
                 in their order, with spaces between them, when it asks for the passphrase. A file may hold the words, this whole page, or the line below \
                 that begins with BLOCKFRAME-SHARE, which is also what the QR code holds. Numbers, capital letters and \
                 line breaks do not matter."
            ),
            words: share.words(),
            code: share.code(),
        }
    }

    /// The sheet as plain text.
    pub fn text(&self) -> Zeroizing<String> {
        let mut page = Page::with_room(TEXT_ROOM);
        page.line(&self.title);
        page.line(&"=".repeat(self.title.len()));
        page.line("");
        for (name, value) in &self.facts {
            page.add(format_args!("{name:8} {}\n", shown(value)));
        }
        for paragraph in [&self.what, &self.how] {
            page.line("");
            page.wrapped(paragraph);
        }
        page.line("");
        for (number, word) in (1..).zip(self.words.iter()) {
            let last = number % COLUMNS == 0 || number == self.words.iter().len();
            match last {
                true => page.add(format_args!("{number:3}. {word}\n")),
                false => page.add(format_args!("{number:3}. {word:12}")),
            }
        }
        page.line("");
        page.wrapped(&self.code);
        page.0
    }

    fn write_html(&self, page: &mut Page) {
        page.line("<section>");
        page.add(format_args!("<h1>{}</h1>\n<dl>\n", Escaped(&self.title)));
        for (name, value) in &self.facts {
            page.add(format_args!("<dt>{}</dt><dd>{}</dd>\n", Escaped(name), Escaped(&shown(value))));
        }
        page.add(format_args!("</dl>\n<p>{}</p>\n<ol>\n", Escaped(&self.what)));
        for word in self.words.iter() {
            page.add(format_args!("<li>{}</li>\n", Escaped(word)));
        }
        page.line("</ol>");
        write_qr(page, &self.code);
        page.add(format_args!("<p><code>{}</code></p>\n", Escaped(&self.code)));
        page.add(format_args!("<p>{}</p>\n</section>\n", Escaped(&self.how)));
    }
}

impl About<'_> {
    fn facts(&self) -> Vec<(&'static str, String)> {
        let date = rfc3339_seconds(self.date);
        let name: String = self.name.chars().take(MAX_NAME).collect();
        vec![
            ("Archive", name),
            ("Id", self.archive.to_string()),
            ("Made", date.split('T').next().unwrap_or_default().to_string()),
        ]
    }
}

/// The sheets as one document, each on a page of its own when it is printed.
pub fn html(sheets: &[Sheet]) -> Zeroizing<String> {
    let mut page = Page::with_room(HTML_ROOM * sheets.len().max(1));
    let title = sheets.first().map_or("BlockFrame", |sheet| &sheet.title);
    page.line("<!DOCTYPE html>");
    page.line("<html lang=\"en\"><head><meta charset=\"utf-8\">");
    // Whatever stands in it: the page loads nothing, and runs nothing.
    page.line(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
    );
    page.add(format_args!("<title>{}</title>\n<style>\n{STYLE}</style></head><body>\n", Escaped(title)));
    sheets.iter().for_each(|sheet| sheet.write_html(&mut page));
    page.line("</body></html>");
    page.0
}

/// Text that grows within the room it has from the beginning.
struct Page(Zeroizing<String>);

impl Page {
    fn with_room(bytes: usize) -> Self {
        Self(Zeroizing::new(String::with_capacity(bytes)))
    }

    fn add(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.0.write_fmt(arguments).unwrap_or_else(|_| unreachable!("a string takes all text"));
    }

    fn line(&mut self, text: &str) {
        self.add(format_args!("{text}\n"));
    }

    fn wrapped(&mut self, text: &str) {
        let mut column = 0;
        for word in text.split(' ') {
            if column > 0 && column + 1 + word.len() > WIDTH {
                self.line("");
                column = 0;
            }
            self.add(format_args!("{}{word}", if column > 0 { " " } else { "" }));
            column += word.len() + usize::from(column > 0);
        }
        self.line("");
    }
}

/// Text within HTML.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ => f.write_char(letter)?,
            }
        }
        Ok(())
    }
}

/// A name without what could move the cursor or turn the direction of writing.
fn shown(name: &str) -> String {
    let moves = |letter: char| {
        letter.is_control()
            || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    name.chars().map(|letter| if moves(letter) { '\u{fffd}' } else { letter }).collect()
}

/// The QR code of `content` as SVG: one path, a run of black modules each step.
fn write_qr(page: &mut Page, content: &str) {
    // A quarter of the code may be lost to a fold or a stain.
    let code = QrCode::with_error_correction_level(content, EcLevel::Q)
        .unwrap_or_else(|error| unreachable!("a QR code holds ten times as much: {error}"));
    let (width, colors) = (code.width(), Zeroizing::new(code.to_colors().iter().map(|&c| c == Color::Dark).collect()));
    let side = width + 2 * QUIET;
    page.add(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\" \
         role=\"img\" aria-label=\"QR code\"><rect width=\"{side}\" height=\"{side}\" fill=\"#fff\"/><path d=\""
    ));
    let colors: &Vec<bool> = &colors;
    for (y, row) in colors.chunks(width).enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|a, b| a == b) {
            if run[0] {
                page.add(format_args!("M{} {}h{}v1h-{}z", x + QUIET, y + QUIET, run.len(), run.len()));
            }
            x += run.len();
        }
    }
    page.line("\" fill=\"#000\"/></svg>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Secret;
    use crate::keys::shares::{Quorum, combine, split};
    use proptest::prelude::*;

    const EVIL: &str = "<script>alert('1')</script> & \"a\"\u{1b}[2J\n\u{202e}BLOCKFRAME-SHARE:00";

    fn about(name: &str) -> About<'_> {
        let archive = "6f9619ff-8b86-4011-b42d-00c04fc964ff".parse().unwrap();
        About { archive, name, date: 1_795_176_000 }
    }

    fn phrase(byte: u8) -> RecoveryPhrase {
        RecoveryPhrase::of(Secret::filled_by(|bytes| bytes.fill(byte)))
    }

    fn shares(threshold: u8, count: u8) -> Vec<Share> {
        split(&Secret::filled_by(|bytes| bytes.fill(7)), Quorum::new(threshold, count).unwrap())
    }

    /// What a decoder of other authors reads from the picture, drawn by the path's commands alone.
    fn scanned(html: &str) -> Vec<String> {
        const SCALE: usize = 4;
        let codes = html.split("<svg").skip(1).map(|rest| {
            let between = |start: &str| rest.split_once(start).unwrap().1.split_once('"').unwrap().0;
            let side: usize = between("viewBox=\"0 0 ").split(' ').next().unwrap().parse().unwrap();
            let mut dark = vec![false; side * side];
            for step in between("<path d=\"M").trim_end_matches('z').split("zM") {
                let (place, run) = step.split_once('h').unwrap();
                let (x, y) = place.split_once(' ').unwrap();
                let (x, y): (usize, usize) = (x.parse().unwrap(), y.parse().unwrap());
                let (run, back) = run.split_once("v1h-").unwrap();
                assert_eq!(run, back);
                dark[y * side + x..][..run.parse::<usize>().unwrap()].fill(true);
            }
            let picture = |x: usize, y: usize| if dark[y / SCALE * side + x / SCALE] { 0 } else { 255 };
            let mut image = rqrr::PreparedImage::prepare_from_greyscale(side * SCALE, side * SCALE, picture);
            let grids = image.detect_grids();
            assert_eq!(grids.len(), 1);
            grids[0].decode().unwrap().1
        });
        codes.collect()
    }

    #[test]
    fn the_qr_code_of_a_phrase_is_read_back() {
        for byte in [0, 1, 0x5a, 0xff] {
            let phrase = phrase(byte);
            let page = html(&[Sheet::of_phrase(&phrase, &about("Photos"))]);
            let codes = scanned(&page);
            assert_eq!(codes.len(), 1);
            let text = Sheet::of_phrase(&phrase, &about("A BLOCKFRAME-PHRASE: of mine")).text();
            for form in [codes[0].as_str(), &page, &text] {
                assert_eq!(RecoveryPhrase::parse(form).unwrap().secret().expose(), phrase.secret().expose());
            }
        }
        // The longest phrase that there may be, eight letters a word, fits too.
        let mut page = Page::with_room(HTML_ROOM);
        let longest = format!("BLOCKFRAME-PHRASE: {}", vec!["ABSTRACT"; 24].join(" "));
        write_qr(&mut page, &longest);
        assert_eq!(scanned(&page.0), [longest]);
    }

    #[test]
    fn every_form_of_a_share_opens_the_set() {
        let shares = shares(3, 5);
        for name in ["Photos", EVIL] {
            let sheets: Vec<Sheet> = shares.iter().map(|share| Sheet::of_share(share, &about(name))).collect();
            let texts: Vec<_> = sheets.iter().map(Sheet::text).collect();
            let pages: Vec<_> = sheets.iter().map(|sheet| html(std::slice::from_ref(sheet))).collect();
            let codes = scanned(&html(&sheets));
            for at in 0..5 {
                let others = [&texts[at], &pages[(at + 1) % 5], &codes[(at + 2) % 5]];
                let three: Vec<Share> = others.iter().map(|text| Share::parse(text).unwrap()).collect();
                assert_eq!(combine(&three).unwrap().expose(), &[7; 32]);
            }
            // The table of words in the text alone.
            let words: Vec<&str> =
                texts[0].lines().filter(|line| line.contains(". ") && line.starts_with(' ')).collect();
            assert_eq!(words.len(), 8);
            assert_eq!(*Share::parse(&words.join("\n")).unwrap().code(), *shares[0].code());
        }
    }

    #[test]
    fn pages_say_what_is_needed() {
        let shares = shares(3, 5);
        let sheets: Vec<Sheet> = shares.iter().map(|share| Sheet::of_share(share, &about("Photos"))).collect();
        let page = html(&sheets);
        for text in [sheets[1].text(), page.clone()] {
            for wanted in [
                "share 2 of 5",
                "any 3 of the 5 shares",
                "6f9619ff-8b86-4011-b42d-00c04fc964ff",
                "Photos",
                "2026-11-20",
                "--share-file",
                &shares[1].set().to_string(),
                &shares[1].code(),
            ] {
                assert!(text.contains(wanted), "{wanted} is missing in {}", *text);
            }
        }
        assert_eq!(page.matches("<section>").count(), 5);
        assert!(STYLE.contains("size: A4") && STYLE.contains("break-after: page"));
        // It loads nothing.
        let links = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        assert!(!links.contains("http://") && !links.contains("https://") && !links.contains("src="));
        let text = sheets[0].text();
        assert!(text.lines().filter(|line| !line.starts_with("BLOCKFRAME")).all(|line| line.len() <= WIDTH));
    }

    #[test]
    fn names_cannot_break_out() {
        let share = Sheet::of_share(&shares(2, 2)[0], &about(EVIL));
        let phrase = Sheet::of_phrase(&phrase(3), &about(EVIL));
        for sheet in [share, phrase] {
            let page = html(std::slice::from_ref(&sheet));
            assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert(&#39;1&#39;)"));
            for text in [page, sheet.text()] {
                assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
                assert!(text.lines().any(|line| line.contains("BLOCKFRAME-SHARE:00")));
            }
        }
    }

    proptest! {
        #[test]
        fn any_name_stays_within_its_line_and_room(name: String) {
            let sheet = Sheet::of_share(&shares(2, 2)[0], &about(&name.repeat(40)));
            let plain = Sheet::of_share(&shares(2, 2)[0], &about("x"));
            let (text, page) = (sheet.text(), html(std::slice::from_ref(&sheet)));
            prop_assert_eq!(text.lines().count(), plain.text().lines().count());
            prop_assert!(text.len() <= TEXT_ROOM && page.len() <= HTML_ROOM);
            // As many marks as there are in a page with a plain name: none came from the name.
            prop_assert_eq!(page.matches('<').count(), html(&[plain]).matches('<').count());
        }
    }
}
