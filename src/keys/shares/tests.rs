use super::*;
use proptest::prelude::*;

fn secret(bytes: [u8; 32]) -> Secret<32> {
    Secret::filled_by(|secret| *secret = bytes)
}

fn quorum(threshold: u8, shares: u8) -> Quorum {
    Quorum::new(threshold, shares).unwrap()
}

/// Randomness that a seed gives again: BLAKE3's output stream.
fn seeded(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut stream = blake3::Hasher::new_keyed(&[9; 32]).update(&seed.to_le_bytes()).finalize_xof();
    move |bytes| stream.fill(bytes)
}

/// A share that somebody made up: its checksum is right.
fn forged(share: &Share, change: impl FnOnce(&mut Share)) -> Share {
    let mut forged = share.clone();
    change(&mut forged);
    Share::from_bytes(&forged.to_bytes()).unwrap()
}

/// A quorum, and which of its shares are at hand, in any order.
fn quorums() -> impl Strategy<Value = (Quorum, Vec<u8>)> {
    (2..=16u8)
        .prop_flat_map(|shares| (2..=shares, Just(shares)))
        .prop_flat_map(|(threshold, shares)| {
            let order = Just((1..=shares).collect::<Vec<u8>>()).prop_shuffle();
            (Just(quorum(threshold, shares)), order, 0..=usize::from(shares))
        })
        .prop_map(|(quorum, order, count)| (quorum, order[..count].to_vec()))
}

proptest! {
    #[test]
    fn enough_shares_recover_and_fewer_never((quorum, hand) in quorums(), bytes: [u8; 32], seed: u64) {
        let all = split_with(&secret(bytes), quorum, seeded(seed));
        prop_assert_eq!(all.len(), usize::from(quorum.shares()));
        let hand: Vec<Share> = hand.iter().map(|index| all[usize::from(*index) - 1].clone()).collect();
        let needed = usize::from(quorum.threshold());
        match combine(&hand) {
            Ok(found) => {
                prop_assert!(hand.len() >= needed);
                prop_assert_eq!(found.expose(), &bytes);
            }
            Err(SharesError::None) => prop_assert!(hand.is_empty()),
            Err(error) => {
                prop_assert!(hand.len() < needed);
                prop_assert_eq!(error.missing().map(usize::from), Some(needed - hand.len()));
            }
        }
    }

    /// Who has one share too few has learnt nothing: for every secret and digest there are shares that go with his.
    #[test]
    fn too_few_shares_fit_every_secret(bytes: [u8; 32], other: [u8; 32], threshold in 2..8u8, seed: u64) {
        let all = split_with(&secret(bytes), quorum(threshold, 8), seeded(seed));
        let held: Vec<(u8, &Secret<32>)> =
            all.iter().take(usize::from(threshold) - 1).map(|share| (share.index, &share.value)).collect();
        let other = secret(other);
        let mut with_other = held.clone();
        with_other.push((SECRET_AT, &other));
        let completed = interpolate(&with_other, 8);
        let mut combined = held.clone();
        combined.push((8, &completed));
        let found = interpolate(&combined, SECRET_AT);
        prop_assert_eq!(found.expose(), other.expose());
    }

    #[test]
    fn words_and_code_are_read_back(bytes: [u8; 32], seed: u64, at in 0..5usize) {
        let share = &split_with(&secret(bytes), quorum(3, 5), seeded(seed))[at];
        let words = share.words();
        let numbered: String =
            words.iter().enumerate().map(|(at, word)| format!("{:2}. {}\r\n", at + 1, word.to_uppercase())).collect();
        let code = share.code();
        let cut = format!("{} {}\n{}", &code[..20].to_lowercase(), &code[20..60], &code[60..]);
        for text in [
            words.text().to_string(),
            numbered.clone(),
            code.to_string(),
            cut,
            format!("Share 1 of 5, \u{2014} words:\n{numbered}\n  QR: <b>{}</b> end", *code),
        ] {
            prop_assert_eq!(Share::parse(&text).unwrap().to_bytes(), share.to_bytes());
        }
    }

    #[test]
    fn another_text_never_panics(text: String) {
        prop_assert!(Share::parse(&text).is_err());
        let code = format!("{CODE_PREFIX}{text}");
        prop_assert!(Share::parse(&code).is_err());
    }

    #[test]
    fn any_bytes_are_refused_or_written_back_the_same(mut bytes in prop::array::uniform32(any::<u8>()), head: [u8; 8]) {
        bytes[0] &= 1;
        let mut all = [0; LENGTH];
        all[..8].copy_from_slice(&head);
        all[0] &= 1;
        all[5] %= 8;
        all[7] %= 8;
        all[8..40].copy_from_slice(&bytes);
        let sum = checksum(&all[..40]);
        all[40..].copy_from_slice(&sum);
        if let Ok(share) = Share::from_bytes(&all) {
            prop_assert_eq!(*share.to_bytes(), all);
            prop_assert!(share.index >= 1 && share.index <= share.quorum.shares());
        }
    }
}

#[test]
fn every_changed_byte_is_noticed() {
    let share = &split_with(&secret([3; 32]), quorum(2, 3), seeded(1))[1];
    let bytes = share.to_bytes();
    for at in 0..LENGTH {
        for change in 1..=255 {
            let mut changed = bytes.clone();
            changed[at] ^= change;
            assert_eq!(Share::from_bytes(&changed).unwrap_err(), SharesError::Checksum, "byte {at} with {change}");
        }
    }
}

/// Made by other code: the interpolation of trezor/python-shamir-mnemonic (SLIP-39's reference), Python's blake3 and
/// big integers for the words. Version 1 never changes.
const MADE: [(&str, &str); 5] = [
    (
        "BLOCKFRAME-SHARE:019F3A0C11030501030A11181F262D343B424950575E656C737A81888F969DA4ABB2B9C0C7CED5DCEA6C7BC6",
        "account what loan capital core letter around drama blossom weird mercy half reflect caution donor type grace \
         glory team adapt material slender isolate nice razor sock cradle oval fruit inside rapid juice",
    ),
    (
        "BLOCKFRAME-SHARE:019F3A0C1103050294D8A6B005D42D395818E1F59C67B44FE21962992C38C11071659CDCB54E58A3A6499A37",
        "account what loan capital core life fat below quote concert area increase light ill stool mind reform lecture \
         main share name broccoli affair athlete grain tragic coil original mechanic spring chapter eight",
    ),
    (
        "BLOCKFRAME-SHARE:019F3A0C110305033338244CE130C9DDB4F40D19788350AB1EE59E65C8DC25F49D89703051AABC47580C1696",
        "account what loan capital core light smooth afraid erupt another crash rocket exercise alley grass away expose \
         flight ride devote frame host oak neck maximum light behave fever settle project core spot",
    ),
    (
        "BLOCKFRAME-SHARE:019F3A0C110305044B0751A6A8D7C6F1F916073030235E4D5B489E8D83B4A5DAD2E5F41B1B083D2EDE23C9C0",
        "account what loan capital core lion clown tuition pluck effort vast token multiply adjust school afford furnace \
         hello split dial subway surge number fog tourist patch short away spray humor monkey day",
    ),
    (
        "BLOCKFRAME-SHARE:019F3A0C11030505ECE7D35A4C33221515FAEBDCD4C7BAA9A7B462716750413E3E0918F7FFECD9CAE78A0C39",
        "account what loan capital core load receive whip fog ghost silk clay garden invest infant ocean rival essay \
         unfair shaft biology popular agent sick animal sibling zoo super original inherit choice mango",
    ),
];

#[test]
fn another_implementation_makes_the_same_shares() {
    let secret = Secret::filled_by(|bytes| bytes.iter_mut().zip(0..).for_each(|(byte, value)| *byte = value));
    let mut parts = vec![
        vec![0x9f, 0x3a, 0x0c, 0x11],
        (0xe0..0xe0 + 28).collect(),
        (0..32).map(|place| place * 7 + 3).collect::<Vec<u8>>(),
    ]
    .into_iter();
    let shares = split_with(&secret, quorum(3, 5), |bytes| bytes.copy_from_slice(&parts.next().unwrap()));
    for (share, (code, words)) in shares.iter().zip(MADE) {
        assert_eq!((share.code().as_str(), share.words().text().as_str()), (code, words));
    }
    let read: Vec<Share> = MADE.iter().map(|(code, _)| Share::parse(code).unwrap()).collect();
    for three in [[0, 1, 2], [4, 0, 3], [2, 4, 1]] {
        let three: Vec<Share> = three.iter().map(|&at: &usize| read[at].clone()).collect();
        assert_eq!(combine(&three).unwrap().expose(), secret.expose());
    }
}

#[test]
fn quorums_have_bounds() {
    for (threshold, shares) in [(0, 0), (0, 3), (1, 1), (1, 5), (4, 3), (2, 101), (255, 255)] {
        let error = Quorum::new(threshold, shares).unwrap_err();
        assert_eq!((&error, error.class()), (&SharesError::Quorum { threshold, shares }, ErrorClass::Invalid));
    }
    let whole = quorum(100, 100);
    let all = split(&secret([1; 32]), whole);
    assert_eq!(combine(&all).unwrap().expose(), &[1; 32]);
    assert_eq!(combine(&all[1..]).unwrap_err().missing(), Some(1));
}

#[test]
fn what_is_missing_is_said() {
    let one = split_with(&secret([1; 32]), quorum(3, 5), seeded(1));
    let other = split_with(&secret([1; 32]), quorum(2, 5), seeded(2));
    let of = |shares: &[&Share]| {
        combine(&shares.iter().map(|share| (*share).clone()).collect::<Vec<_>>()).unwrap_err().to_string()
    };
    let (set, set_other) = (one[0].set(), other[0].set());
    assert_eq!(of(&[]), "no share was given");
    assert_eq!(
        of(&[&one[4]]),
        format!("2 more of the 5 shares of set {set} are needed: 3 of them open the archive, and 5 is here")
    );
    assert_eq!(
        of(&[&one[4], &one[1]]),
        format!("1 more of the 5 shares of set {set} is needed: 3 of them open the archive, and 2 and 5 are here")
    );
    assert_eq!(
        of(&[&one[1], &one[4], &one[1]]),
        format!("share 2 of set {set} was given twice: 1 share is still needed")
    );
    assert_eq!(
        of(&[&other[2], &one[1], &one[4]]),
        format!(
            "share 3 is of set {set_other}, the others are of set {set}: leave it out; of set {set} 1 share is still needed"
        )
    );
    assert!(of(&[&one[0], &other[0]]).contains(&format!("of set {set} 2 shares are still needed")));
    // With enough of them, the one that was given twice does no harm.
    let enough: Vec<Share> = [0, 1, 1, 2].iter().map(|&at: &usize| one[at].clone()).collect();
    assert_eq!(combine(&enough).unwrap().expose(), &[1; 32]);
}

#[test]
fn shares_are_gathered_one_by_one() {
    let one = split_with(&secret([1; 32]), quorum(3, 5), seeded(1));
    let other = split_with(&secret([2; 32]), quorum(2, 5), seeded(2));
    let mut gathering = Gathering::default();
    assert_eq!(gathering.missing(), None);
    assert!(gathering.take(one[4].clone()).unwrap().is_none());
    assert_eq!(gathering.missing(), Some(2));
    assert!(matches!(gathering.take(one[4].clone()), Err(SharesError::Doubled { index: 5, missing: 2, .. })));
    assert!(matches!(gathering.take(other[0].clone()), Err(SharesError::OtherSet { index: 1, missing: 2, .. })));
    assert!(gathering.take(one[0].clone()).unwrap().is_none());
    assert_eq!((gathering.missing(), gathering.have()), (Some(1), vec![5, 1]));
    let wrong = forged(&one[2], |share| share.value = secret([9; 32]));
    assert!(matches!(gathering.take(wrong), Err(SharesError::Wrong { .. })));
    assert_eq!(gathering.missing(), None);
    for share in &one[..2] {
        assert!(gathering.take(share.clone()).unwrap().is_none());
    }
    assert_eq!(gathering.take(one[2].clone()).unwrap().unwrap().expose(), &[1; 32]);
}

#[test]
fn forged_shares_give_an_error_and_not_another_secret() {
    let all = split_with(&secret([1; 32]), quorum(3, 5), seeded(3));
    let wrong = |shares: Vec<Share>| {
        let error = combine(&shares).unwrap_err();
        assert!(matches!(error, SharesError::Wrong { .. }), "{error}");
        assert_eq!(error.class(), ErrorClass::WrongKey);
    };
    let flipped = forged(&all[2], |share| share.value = secret([9; 32]));
    wrong(vec![all[0].clone(), all[1].clone(), flipped.clone()]);
    // Beyond the threshold too.
    wrong(vec![all[0].clone(), all[1].clone(), all[4].clone(), flipped.clone()]);
    wrong(vec![all[2].clone(), flipped]);
    // The threshold turned down, in one and in all.
    let low = |share: &Share| forged(share, |share| share.quorum = quorum(2, 5));
    wrong(vec![low(&all[0]), low(&all[1])]);
    wrong(vec![low(&all[0]), low(&all[1]), low(&all[2])]);
    wrong(vec![all[0].clone(), all[1].clone(), low(&all[2])]);
    // Shares of another split that carry this set's name.
    let other = split_with(&secret([1; 32]), quorum(3, 5), seeded(4));
    let renamed = forged(&other[2], |share| share.set = all[0].set);
    wrong(vec![all[0].clone(), all[1].clone(), renamed]);
    // A share under another number.
    wrong(vec![all[0].clone(), all[1].clone(), forged(&all[2], |share| share.index = 4)]);
}

#[test]
fn splits_differ_and_values_are_never_printed() {
    let (one, other) = (split(&secret([7; 32]), quorum(2, 2)), split(&secret([7; 32]), quorum(2, 2)));
    assert_ne!(one[0].set(), other[0].set());
    assert_ne!(one[0].value.expose(), other[0].value.expose());
    assert!(format!("{:?}", one[0]).ends_with("value: Secret<32> }"));
}
