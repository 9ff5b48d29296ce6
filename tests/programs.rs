//! Programs of everyday life on a mount that is written: what they do on any
//! other filesystem they do here, and it is all there after the next mount.
//! Where a program says what it sees, it must say the same in a directory of
//! the machine's own filesystem.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kit;

use kit::content;
use kit::program::{Place, can_mount};
use kit::view::{difference, of_source};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// An empty archive, mounted to be written.
struct Stage {
    place: Place,
}

/// Whether a program can be run; a line says which one is missing.
fn has(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &str| std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    let missing: Vec<_> = programs.iter().filter(|program| !found(program)).collect();
    if !missing.is_empty() {
        eprintln!("skipped: there is no {missing:?} here");
    }
    missing.is_empty()
}

impl Stage {
    /// `None` where mounts or one of the programs are missing.
    fn with(programs: &[&str]) -> Option<Self> {
        if !can_mount() || !has(programs) {
            return None;
        }
        let stage = Self { place: Place::new() };
        stage.place.ok(["init".as_ref(), stage.place.archive().as_os_str()]);
        stage.mount();
        Some(stage)
    }

    /// The same with an archive that is compressed and encrypted.
    fn encrypted_with(programs: &[&str]) -> Option<Self> {
        if !can_mount() || !has(programs) {
            return None;
        }
        let stage = Self { place: Place::new() };
        stage.place.init_encrypted(&["--compress", "zstd:1"]);
        stage.mount();
        Some(stage)
    }

    fn mount(&self) {
        let mnt = self.mnt();
        let mut words = vec!["mount".as_ref(), mnt.as_os_str()];
        if rustix::process::geteuid().is_root() {
            words.extend(["-o", "dev,suid"].map(OsStr::new));
        }
        self.place.ok(words);
    }

    fn mnt(&self) -> PathBuf {
        self.place.path("mnt")
    }

    /// A directory outside of the mount, empty at first.
    fn outside(&self) -> PathBuf {
        let path = self.place.path("outside");
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// What a command for lines of shell starts from: nothing of the user's configuration counts.
    fn shell(&self, directory: &Path, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-euc", script]).current_dir(directory).stdin(Stdio::null());
        command.env("HOME", self.outside()).env("LC_ALL", "C").env("OUT", self.outside()).env("MNT", self.mnt());
        for (name, value) in [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@example.org"),
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@example.org"),
        ] {
            command.env(name, value);
        }
        command.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS").env_remove("MAKEFLAGS");
        command
    }

    /// What lines of shell print in a directory. They must succeed.
    fn run(&self, directory: &Path, script: &str) -> String {
        let output = self.shell(directory, script).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}\n{script}\n--- said:\n{out}{err}", output.status);
        out.into_owned()
    }

    /// The same in the top of the mount.
    fn sh(&self, script: &str) -> String {
        self.run(&self.mnt(), script)
    }

    /// Lines of shell print the same on the mount as outside. What they make stays in `same`.
    fn same(&self, script: &str) -> String {
        let (ours, theirs) = (self.mnt().join("same"), self.outside().join("same"));
        for directory in [&ours, &theirs] {
            fs::create_dir_all(directory).unwrap();
        }
        let (ours, theirs) = (self.run(&ours, script), self.run(&theirs, script));
        assert_eq!(ours, theirs, "on the mount (left) and outside (right):\n{script}");
        ours
    }

    /// Once all is committed the tree is what it was; unmounted, the archive is
    /// healthy; mounted again, the tree is the same still.
    fn keeps(&self) {
        let before = of_source("", &self.mnt());
        self.place.ok(["sync"]);
        if let Some(lines) = difference(&before, &of_source("", &self.mnt())) {
            panic!("after the commit:\n{lines}");
        }
        self.place.ok(["umount".as_ref(), self.mnt().as_os_str()]);
        self.place.ok(["health"]);
        self.mount();
        if let Some(lines) = difference(&before, &of_source("", &self.mnt())) {
            panic!("after the next mount:\n{lines}");
        }
    }
}

/// A tree with what copying programs have to carry over.
fn fill(top: &Path) {
    for directory in ["empty", "deep/er/still", "many"] {
        fs::create_dir_all(top.join(directory)).unwrap();
    }
    for index in 0..200 {
        fs::write(top.join(format!("many/{index:04}")), content((index * 37) % 9000, index as u64)).unwrap();
    }
    fs::write(top.join("big"), content(3_000_001, 1)).unwrap();
    fs::write(top.join("nothing"), b"").unwrap();
    fs::write(top.join("name with space and \u{e4}"), b"text\n").unwrap();
    fs::write(top.join("n".repeat(255)), b"long name").unwrap();
    fs::hard_link(top.join("big"), top.join("deep/big again")).unwrap();
    symlink("deep/er", top.join("link")).unwrap();
    symlink("/nowhere/at all", top.join("dangling")).unwrap();
    let sparse = fs::File::create(top.join("sparse")).unwrap();
    sparse.write_all_at(b"island", 4 << 20).unwrap();
    sparse.set_len(8 << 20).unwrap();
    for (name, mode) in [("big", 0o640), ("deep", 0o1777), ("nothing", 0o4711)] {
        fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn git_makes_clones_and_repacks_repositories() {
    let Some(stage) = Stage::with(&["git"]) else { return };
    stage.run(
        &stage.outside(),
        r#"git init -q -b main origin; cd origin
        for i in $(seq 400); do mkdir -p "d$((i % 20))"; seq "$i" "$((i + 300))" > "d$((i % 20))/f$i"; done
        git add .; git commit -qm one; echo x >> d1/f1; git commit -qam two"#,
    );
    stage.sh(r#"
        git init -q -b main new; cd new; cp -r "$OUT/origin/d1" .; git add .; git commit -qm first; git fsck --strict
        cd ..; git clone -q "file://$OUT/origin" clone; cd clone
        test -z "$(git status --porcelain)"
        git checkout -q -b other HEAD~1; echo other > other; git add other; git commit -qm three
        git checkout -q main; git mv d2 e2; rm d3/f3; git commit -qam four; git merge -q -m merged other
        git tag -a -m tag v1; echo y > untracked; git stash -q -u; git stash pop -q; rm untracked
        git worktree add -q ../work v1; git -C ../work status --porcelain
        git gc -q --aggressive --prune=now; git fsck --strict --full
        test -z "$(git status --porcelain)"
        git clone -q . ../linked; git -C ../linked fsck --strict
        git pull -q --rebase origin main; git bundle create -q "$OUT/bundle" --all; git bundle verify -q "$OUT/bundle"
    "#);
    stage.keeps();
    stage.sh(r#"for r in new clone linked work; do git -C $r fsck --strict; test -z "$(git -C $r status --porcelain)"; done"#);
}

/// Several processes write to one database at once, in a journal mode.
fn sqlite_with_writers(stage: &Stage, mode: &str) {
    let script = format!(
        r#"sqlite3 {mode}.db 'pragma journal_mode={mode}; create table t(who, n, filler);' >/dev/null
        for who in 1 2 3; do
            (echo '.timeout 100000'; echo '.bail on'
            for n in $(seq 60); do echo "insert into t values($who, $n, randomblob(700));"; done) | sqlite3 {mode}.db &
            pids="${{pids:-}} $!"
        done
        for pid in $pids; do wait "$pid"; done
        sqlite3 {mode}.db 'select count(*), count(distinct who || "/" || n) from t; pragma integrity_check; vacuum; pragma integrity_check;'"#
    );
    assert_eq!(stage.sh(&script), "180|180\nok\nok\n", "{mode}");
}

/// A client is killed while it writes; what it said is committed stays.
fn sqlite_killed(stage: &Stage, mode: &str) {
    let mut child = stage
        .shell(&stage.mnt(), &format!("exec sqlite3 {mode}.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let _ = input.write_all(b".timeout 100000\n");
        for n in 0..1_000_000 {
            let line = format!("insert into t values('killed', {n}, zeroblob(5000)); select {n};\n");
            if input.write_all(line.as_bytes()).is_err() {
                return;
            }
        }
    });
    let last = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).take(40).last().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    writer.join().unwrap();
    let said: u64 = last.parse().unwrap();
    let query = format!("sqlite3 {mode}.db \"pragma integrity_check; select max(n) from t where who = 'killed'\"");
    let answer = stage.sh(&query);
    let found: u64 = answer.strip_prefix("ok\n").expect(&answer).trim().parse().unwrap();
    assert!(found >= said, "{mode}: {found} is the last, but {said} was committed");
}

#[test]
fn sqlite_keeps_its_promises_in_every_journal_mode() {
    let Some(stage) = Stage::with(&["sqlite3"]) else { return };
    for mode in ["wal", "delete", "truncate"] {
        sqlite_with_writers(&stage, mode);
        sqlite_killed(&stage, mode);
    }
    stage.keeps();
    for mode in ["wal", "delete", "truncate"] {
        assert_eq!(stage.sh(&format!("sqlite3 {mode}.db 'pragma integrity_check'")), "ok\n");
    }
}

#[test]
fn git_and_sqlite_work_in_an_encrypted_archive() {
    let Some(stage) = Stage::encrypted_with(&["git", "sqlite3"]) else { return };
    stage.sh(r#"
        git init -q -b main new; cd new; for i in $(seq 60); do seq "$i" 300 > "f$i"; done; git add .; git commit -qm first
        git checkout -q -b other; echo other > other; git add other; git commit -qm second; git checkout -q main
        git merge -q other; git gc -q; git fsck --strict; test -z "$(git status --porcelain)""#);
    sqlite_with_writers(&stage, "wal");
    sqlite_killed(&stage, "wal");
    stage.keeps();
    assert_eq!(stage.sh("sqlite3 wal.db 'pragma integrity_check'"), "ok\n");
    stage.sh("cd new; git fsck --strict; test -z \"$(git status --porcelain)\"");
}

#[test]
fn rsync_carries_links_lists_and_attributes_there_and_back() {
    let Some(stage) = Stage::with(&["rsync", "diff", "setfacl", "setfattr"]) else { return };
    let source = stage.outside().join("source");
    fill(&source);
    stage.run(
        &source,
        "setfattr -n user.colour -v blue big; setfattr -n user.note -v x empty
        setfacl -m u:1234:rw,g:77:r big; setfacl -d -m u:1234:rwx deep",
    );
    stage.sh(r#"rsync --modify-window=-1 -aHAXS "$OUT/source/" there; rsync --modify-window=-1 -aHAXS there/ "$OUT/back"
        diff -r --no-dereference "$OUT/source" there; diff -r --no-dereference there "$OUT/back"
        test -z "$(rsync --modify-window=-1 -aHAXnic "$OUT/source/" there)"
        echo more >> "$OUT/source/big"; rm "$OUT/source/many/0007"; touch -d 1970-01-02 "$OUT/source/many/0008"
        rsync --modify-window=-1 -aHAX --delete --inplace --no-whole-file "$OUT/source/" there; rsync --modify-window=-1 -aHAX --delete there/ "$OUT/back""#);
    let expected = of_source("", &source);
    assert_eq!(difference(&expected, &of_source("", &stage.mnt().join("there"))), None);
    assert_eq!(difference(&expected, &of_source("", &stage.outside().join("back"))), None);
    stage.keeps();
}

#[test]
fn tar_and_zip_are_packed_and_unpacked() {
    let Some(stage) = Stage::with(&["tar", "diff"]) else { return };
    let source = stage.outside().join("source");
    fill(&source);
    stage.sh(r#"tar -C "$OUT" --xattrs --acls -cSf from-outside.tar source; tar --xattrs --acls -xpSf from-outside.tar
        tar -cSf again.tar source; tar -df again.tar
        mkdir stream; tar -cf - source | tar -C stream -xpf -; diff -r --no-dereference source stream/source"#);
    assert_eq!(difference(&of_source("", &source), &of_source("", &stage.mnt().join("source"))), None);
    if has(&["zip", "unzip"]) {
        stage.sh("zip -qr all.zip source -x '*dangling'; unzip -tqq all.zip; mkdir un; unzip -q all.zip -d un
            rm source/dangling; diff -r source un/source");
    }
    stage.keeps();
}

#[test]
fn ripgrep_finds_the_same_mapped_and_read() {
    let Some(stage) = Stage::with(&["rg"]) else { return };
    stage.sh("mkdir text; for i in $(seq 100); do seq \"$i\" 3000 > text/$i; echo needle $i >> text/$i; done");
    let count = |how: &str| stage.sh(&format!("rg {how} -N --no-filename needle text | sort | uniq | wc -l"));
    assert_eq!((count("--mmap"), count("--no-mmap")), ("100\n".into(), "100\n".into()));
    stage.sh("for i in $(seq 50); do echo needle more >> text/$i; done");
    assert_eq!((count("--mmap"), count("--no-mmap")), ("101\n".into(), "101\n".into()));
    stage.keeps();
    assert_eq!((count("--mmap"), count("--no-mmap")), ("101\n".into(), "101\n".into()));
}

#[test]
fn make_builds_a_c_project_and_knows_what_is_up_to_date() {
    let Some(stage) = Stage::with(&["make", "cc", "ar"]) else { return };
    let makefile = "OBJECTS = $(patsubst %.c,%.o,$(wildcard f*.c))\nprogram: main.o libf.a\n\tcc -o $@ main.o libf.a\n\
        libf.a: $(OBJECTS)\n\trm -f $@; ar rcs $@ $(OBJECTS)\n%.o: %.c f.h\n\tcc -g -O1 -c -o $@ $<\n";
    fs::create_dir(stage.mnt().join("project")).unwrap();
    fs::write(stage.mnt().join("project/Makefile"), makefile).unwrap();
    stage.sh(
        r#"cd project
        for i in $(seq 15); do echo "int f$i(void);" >> f.h; printf '#include "f.h"\nint f%d(void) { return %d; }\n' $i $i > f$i.c; done
        printf '#include <stdio.h>\n#include "f.h"\nint main(void) { printf("%%d\\n", f1() + f15()); return 0; }\n' > main.c
        make -s -j4; test "$(./program)" = 16; make -q
        touch f3.c; ! make -q; make -s; make -q; cp program other; ./other
        cc -shared -fPIC -o libg.so f1.c; make -s -B -j4; strip program; ./program"#,
    );
    stage.keeps();
    assert_eq!(stage.sh("cd project; make -q; ./program"), "16\n");
}

#[test]
fn cargo_builds_on_the_mount() {
    let Some(stage) = Stage::with(&["cargo", "rustc"]) else { return };
    // The toolchain is found through the user's home.
    let home = std::env::var_os("HOME").unwrap_or_default();
    let cargo = |script: &str| {
        let output = stage.shell(&stage.mnt(), script).env("HOME", &home).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let script = r#"mkdir -p c/src; cd c
        printf '[package]\nname = "c"\nversion = "0.1.0"\nedition = "2021"\n[workspace]\n' > Cargo.toml
        echo 'pub fn f() -> u32 { 7 }' > src/lib.rs; echo 'fn main() { println!("{}", c::f()) }' > src/main.rs
        cargo run -q --offline; echo 'pub fn f() -> u32 { 8 }' > src/lib.rs; cargo run -q --offline"#;
    assert_eq!(cargo(script), "7\n8\n");
    stage.keeps();
    assert_eq!(cargo("cd c; cargo build --offline 2>&1 | grep -c Compiling || true; cargo run -q --offline"), "0\n8\n");
}

#[test]
fn editors_replace_files_and_keep_their_permissions() {
    let Some(stage) = Stage::with(&["sed", "ex"]) else { return };
    stage.same(
        r#"for way in yes no auto; do
            echo one > f; chmod 640 f; ln f f.hard
            printf 'set backup backupcopy=%s\n%%s/one/two/\nwq\n' $way | ex -s f
            cat f f.hard f~; stat -c '%a %h' f; rm -f f f.hard f~
        done
        umask 027; printf 'one\ntwo\n' > g; chmod 4751 g; sed -i.bak -e s/one/three/ g; cat g g.bak
        stat -c '%a %h' g g.bak; ln -s g s; sed -i --follow-symlinks s/two/four/ s; cat s; readlink s
        echo new > g.new; mv g.new g; cat g; stat -c '%a %h' g; ls -A"#,
    );
    stage.keeps();
}

#[test]
fn a_lock_of_one_process_keeps_the_other_out() {
    let Some(stage) = Stage::with(&["flock"]) else { return };
    let mut holder = stage
        .shell(&stage.mnt(), "exec flock lock sh -c 'echo held; read x; echo done > result'")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    stage.sh("! flock -n lock true; ! flock -n -s lock true; ! test -e result");
    let waiting = stage.shell(&stage.mnt(), "flock lock cat result").stdout(Stdio::piped()).spawn().unwrap();
    holder.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert!(holder.wait().unwrap().success());
    assert_eq!(waiting.wait_with_output().unwrap().stdout, b"done\n");
    stage.sh("flock -n lock true; flock -s lock flock -n -s lock true");
    stage.keeps();
}

#[test]
fn holes_stay_holes_and_every_way_to_allocate_does_what_it_says() {
    let Some(stage) = Stage::with(&["fallocate", "truncate", "cmp"]) else { return };
    stage.same(
        r#"truncate -s 16M a; printf island | dd of=a bs=1 seek=5000000 conv=notrunc status=none
        cp a plain; cp --sparse=always a always; cp --sparse=never a never; cp --reflink=auto a auto
        for f in plain always never auto; do cmp a $f; stat -c '%n %s' $f; done
        for f in a plain always auto; do test "$(stat -c %b $f)" -lt 1000 && echo "$f sparse"; done
        truncate -s 3 plain; truncate -s +5 plain; od -c plain; truncate -s %4096 plain; stat -c %s plain
        yes abcdefg | head -c 1000000 > full; cp full f
        fallocate -p -o 8192 -l 65536 f; cksum f
        fallocate -n -o 2000000 -l 1000000 f; stat -c %s f; fallocate -o 990000 -l 100000 f; stat -c %s f; cksum f
        fallocate -l 5000000 new; stat -c %s new; cksum new
        cp full dug; dd if=/dev/zero of=dug bs=4096 seek=10 count=30 conv=notrunc status=none; cksum dug; fallocate -d dug; cksum dug"#,
    );
    // Not every filesystem can zero a range.
    stage.sh(
        r#"cd same; cp full z; cp full expected; dd if=/dev/zero of=expected bs=1 seek=200000 count=100001 conv=notrunc status=none
        fallocate -z -o 200000 -l 100001 z; cmp expected z; fallocate -z -n -o 999999 -l 100000 z; truncate -s 999999 expected
        printf '\0' >> expected; cmp expected z; fallocate -z -o 990000 -l 100000 z; truncate -s 990000 expected
        truncate -s 1090000 expected; cmp expected z; ! fallocate -c -o 0 -l 4096 z 2>/dev/null; cmp expected z"#,
    );
    stage.keeps();
    stage.sh("cd same; for f in a always; do test $(stat -c %b $f) -lt 1000; done");
}

#[test]
fn what_is_counted_is_there() {
    let Some(stage) = Stage::with(&["find", "du", "df"]) else { return };
    fill(&stage.mnt().join("tree"));
    fill(&stage.outside().join("tree"));
    for script in [
        "find . | sort",
        "find . -type f -printf '%p %s %n %m %T@\\n' | sed 's/ [0-9.]*$//' | sort",
        "find . -samefile tree/big | sort; find . -empty | sort; find . -newer tree/big -name nosuch",
        "du -ab --apparent-size tree | grep -v '/$' | awk '{print $2}' | sort; ls -R",
    ] {
        let (ours, theirs) = (stage.sh(script), stage.run(&stage.outside(), script));
        assert_eq!(ours, theirs, "{script}");
    }
    let kib: u64 = stage.sh("du -sk tree | cut -f 1").trim().parse().unwrap();
    assert!((3500..8000).contains(&kib), "{kib} KiB of a tree of 4 MiB with a hole of 8");
    let before: Vec<u64> = figures(&stage.sh("df -k --output=size,used,avail . | tail -n 1"));
    assert!(before[0] >= before[1] + before[2] && before[2] > 0, "{before:?}");
    stage.sh("df -i . >/dev/null; stat -f . >/dev/null");
    stage.keeps();
    stage.sh("chmod -R u+rwx tree; rm -r tree; test -z \"$(ls -A)\"");
    stage.keeps();
}

fn figures(line: &str) -> Vec<u64> {
    line.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

#[test]
fn access_lists_are_inherited_as_anywhere() {
    let Some(stage) = Stage::with(&["setfacl", "getfacl"]) else { return };
    stage.same(
        r#"umask 022; mkdir d; setfacl -d -m u:1234:rwx,g:77:rx,o::- d; setfacl -m u:5:x d
        mkdir d/sub; mkdir -m 700 d/private; echo x > d/file; echo x > d/sub/deeper; mkfifo d/pipe; cp -p d/file d/copy
        (umask 077; echo x > d/narrow; mkdir d/sub/narrow); install -m 755 /dev/null d/program
        find d | sort | xargs getfacl -n; chmod g-w d/file; chmod 600 d/sub/deeper; setfacl -x g:77 d/narrow; setfacl -b d/copy; setfacl -k d/private
        mv d/file plain; mkdir d/private/under; cp -a d e; getfacl -nR . | sort | uniq -c; ls -lR | awk 'NF > 3 {print $1, $9}'"#,
    );
    stage.keeps();
}

#[test]
fn names_and_paths_may_be_as_long_as_the_kernel_takes_them() {
    let Some(stage) = Stage::with(&[]) else { return };
    stage.same(
        r#"n=$(printf '%0255d' 0); echo x > $n; mkdir ${n%0}1; ln $n ${n%0}2; ln -s $n ${n%0}3; mv ${n%0}2 ${n%0}4; ls | cksum
        for c in "echo x >" mkdir "ln $n" "mv $n"; do (eval "$c ${n}0" 2>/dev/null) || echo too long; done; cat ${n%0}3"#,
    );
    // With the zero byte that ends it, 4096 bytes.
    let mut path = stage.mnt();
    let name = "p".repeat(200);
    while path.as_os_str().len() + 1 + name.len() < 4095 - 210 {
        path.push(&name);
    }
    fs::create_dir_all(&path).unwrap();
    let room = 4095 - path.as_os_str().len() - 1;
    let parts = (room / 2, room - room / 2 - 1);
    path.push("q".repeat(parts.0));
    fs::create_dir(&path).unwrap();
    path.push("r".repeat(parts.1));
    assert_eq!(path.as_os_str().len(), 4095);
    fs::write(&path, b"at the end").unwrap();
    let error = fs::write(path.with_file_name("r".repeat(parts.1 + 1)), b"").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NAMETOOLONG.raw_os_error()));
    stage.keeps();
    assert_eq!(fs::read(&path).unwrap(), b"at the end");
    stage.sh("rm -r ppp*");
}

#[test]
fn a_listing_misses_nothing_that_stays_while_others_come_and_go() {
    let Some(stage) = Stage::with(&[]) else { return };
    let top = stage.mnt().join("many");
    fs::create_dir(&top).unwrap();
    let stays = |number: usize| format!("stays-{number:05}");
    for number in 0..20_000 {
        fs::File::create(top.join(stays(number))).unwrap();
    }
    let end = AtomicBool::new(false);
    let churn = |who: usize| {
        for number in (0..).take_while(|_| !end.load(Ordering::Relaxed)) {
            let name = |number: usize| top.join(format!("{}-{who}-{}", ["a", "t", "z"][number % 3], number % 1000));
            fs::write(name(number), b"x").unwrap();
            fs::rename(name(number), top.join(format!("moved-{who}-{number}"))).unwrap();
            fs::remove_file(top.join(format!("moved-{who}-{number}"))).unwrap();
        }
    };
    std::thread::scope(|scope| {
        for who in 0..2 {
            scope.spawn(move || churn(who));
        }
        let found = std::panic::catch_unwind(|| {
            for _ in 0..5 {
                let names = fs::read_dir(&top).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
                let mut names: Vec<String> = names.collect();
                names.sort();
                let all = names.len();
                names.dedup();
                assert_eq!(all, names.len(), "names come twice");
                names.retain(|name| name.starts_with("stays-"));
                assert!(names.iter().eq(&(0..20_000).map(stays).collect::<Vec<_>>()), "{} of 20,000", names.len());
            }
        });
        end.store(true, Ordering::Relaxed);
        found.unwrap();
    });
    assert_eq!(stage.sh("ls many | wc -l"), "20000\n");
    stage.keeps();
    stage.sh("rm -r many");
}

#[test]
fn mapped_files_are_written_and_seen_by_all() {
    let Some(stage) = Stage::with(&["python3"]) else { return };
    let script = r#"
import mmap, os
def use(path, make):
    f = os.open(path, os.O_RDWR | make, 0o644)
    os.ftruncate(f, 1 << 20)
    m = mmap.mmap(f, 1 << 20)
    m[5000:5005] = b"first"
    m[(1 << 20) - 3:] = b"end"
    g = os.open(path, os.O_RDONLY)
    assert os.pread(g, 5, 5000) == b"first"
    os.pwrite(f, b"second", 300000)
    assert m[300000:300006] == b"second"
    private = mmap.mmap(f, 1 << 20, flags=mmap.MAP_PRIVATE)
    private[0:4] = b"mine"
    assert os.pread(g, 4, 0) == bytes(4)
    m.flush()
    os.fsync(f)
    os.close(f)
    m[700000:700005] = b"after"
    m.close()
    assert os.pread(g, 5, 700000) == b"after"
    os.close(g)
    return open(path, "rb").read()
new = use("mapped", os.O_CREAT | os.O_EXCL)
# Again, on what has been closed.
open("old", "wb").write(bytes(1 << 20))
assert use("old", 0) == new and len(new) == 1 << 20
"#;
    fs::write(stage.outside().join("maps.py"), script).unwrap();
    stage.sh(r#"python3 "$OUT/maps.py"; cmp mapped old; python3 "$OUT/maps.py" 2>/dev/null && exit 1; rm mapped; python3 "$OUT/maps.py""#);
    stage.keeps();
}

#[test]
fn dd_past_the_page_cache_and_in_pieces_gives_the_same_bytes() {
    let Some(stage) = Stage::with(&["dd", "cmp"]) else { return };
    fs::write(stage.outside().join("source"), content(5_000_000, 9)).unwrap();
    stage.sh(
        r#"s="$OUT/source"
        head -c 4194304 "$s" > "$OUT/even"; dd if="$OUT/even" of=direct bs=1M oflag=direct status=none; cmp "$OUT/even" direct
        dd if=direct of=back bs=64k iflag=direct status=none; cmp direct back
        dd if="$OUT/even" of=direct bs=4k count=3 skip=7 seek=100 conv=notrunc oflag=direct,sync status=none
        cp "$OUT/even" expected; dd if="$OUT/even" of=expected bs=4k count=3 skip=7 seek=100 conv=notrunc status=none; cmp expected direct
        dd if="$s" of=odd bs=999 status=none; cmp "$s" odd
        dd if="$s" of=synced bs=100k oflag=dsync conv=fsync status=none; cmp "$s" synced
        head -c 1000 "$s" > joined; tail -c +1001 "$s" | dd of=joined oflag=append conv=notrunc bs=7777 status=none; cmp "$s" joined"#,
    );
    stage.keeps();
}
