//! Debian's packages: which mirrors the machine uses, installing by name, and
//! packages of other releases, which are only unpacked.
//!
//! Owns every call of apt. Must never name a mirror itself: where packages
//! come from is the machine's business.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::process;

const HELPER: &str = "/usr/lib/apt/apt-helper";
const SOURCES: &str = "/etc/apt/sources.list";
const SOURCES_DIR: &str = "/etc/apt/sources.list.d";
const UPDATE_LIMIT: Duration = Duration::from_mins(3);
const INSTALL_LIMIT: Duration = Duration::from_mins(10);

/// Whether this machine gets its packages from apt.
pub(crate) fn is_there() -> bool {
    Path::new(HELPER).is_file()
}

/// Installs packages, with the package lists brought up to date if they do not
/// know them all. Needs root.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if try_install(packages).is_ok() {
        return Ok(());
    }
    process::capture(apt_get().args(["update"]), UPDATE_LIMIT)?;
    try_install(packages)
}

fn try_install(packages: &[&str]) -> Result<()> {
    let mut command = apt_get();
    command.args(["install", "--yes", "--no-install-recommends"]);
    process::capture(command.args(packages), INSTALL_LIMIT).map(drop)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["-q", "-o", "DPkg::Lock::Timeout=60"]);
    command
}

/// Fetches a file by apt's own means, so that its proxy and certificates hold,
/// and keeps it only if its SHA-256 is right.
pub(crate) fn download(uri: &str, file: &Path, sha256: &str, limit: Duration) -> Result<()> {
    let mut command = Command::new(HELPER);
    command.arg("download-file").arg(uri).arg(file);
    command.arg(format!("SHA256:{sha256}"));
    process::capture(&mut command, limit).map(drop)
}

/// Another release of Debian, with package lists of its own: what the machine
/// itself is configured with stays as it is.
pub(crate) struct Suite {
    /// Holds the lists and the source that they come from.
    dir: PathBuf,
}

impl Suite {
    /// Reads the package lists of the release `name` from the first of the
    /// machine's mirrors that has it. `dir` is for its files.
    pub(crate) fn read(name: &str, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir.join("lists/partial"))
            .with_context(|| format!("{} cannot be made", dir.display()))?;
        let suite = Self {
            dir: dir.to_path_buf(),
        };
        let mut last = anyhow!("no apt source of this machine holds Debian's `main`");
        for mirror in mirrors()? {
            let source = format!("deb {mirror} {name} main\n");
            fs::write(suite.source(), source)
                .with_context(|| format!("{} cannot be written", suite.source().display()))?;
            let mut update = suite.apt("apt-get");
            // Else a mirror that lacks the release would be a mere warning.
            update.args(["-o", "APT::Update::Error-Mode=any", "update"]);
            match process::capture(&mut update, UPDATE_LIMIT) {
                Ok(_) => return Ok(suite),
                Err(error) => last = error,
            }
        }
        Err(last.context(format!("no mirror of this machine has the release {name}")))
    }

    /// The packages whose name matches a regular expression.
    pub(crate) fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let mut search = self.apt("apt-cache");
        search.args(["search", "--names-only", pattern]);
        let said = process::capture(&mut search, UPDATE_LIMIT)?;
        let names = said.lines().filter_map(|line| line.split(" - ").next());
        Ok(names.map(str::to_owned).collect())
    }

    /// The names in the package's `Depends`.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let mut show = self.apt("apt-cache");
        show.args(["show", "--no-all-versions", package]);
        let said = process::capture(&mut show, UPDATE_LIMIT)?;
        let lines: Vec<&str> = said.lines().collect();
        let words = field(&lines, "depends").into_iter();
        // Versions and alternatives are no names; nobody asks for them.
        Ok(words
            .map(|word| word.trim_end_matches(',').to_owned())
            .collect())
    }

    /// Downloads packages into a directory. apt checks each against the sum in
    /// the signed list.
    pub(crate) fn download(&self, packages: &[String], into: &Path) -> Result<()> {
        let mut download = self.apt("apt-get");
        download.current_dir(into).arg("download").args(packages);
        process::capture(&mut download, INSTALL_LIMIT).map(drop)
    }

    fn source(&self) -> PathBuf {
        self.dir.join("sources.list")
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let lists = self.dir.join("lists");
        for (option, value) in [
            ("Dir::Etc::sourcelist", self.source().as_os_str()),
            ("Dir::Etc::sourceparts", "-".as_ref()),
            ("Dir::State::lists", lists.as_os_str()),
            ("Dir::Cache::pkgcache", "".as_ref()),
            ("Dir::Cache::srcpkgcache", "".as_ref()),
            ("Acquire::Languages", "none".as_ref()),
        ] {
            let mut setting = std::ffi::OsString::from(option);
            setting.push("=");
            setting.push(value);
            command.arg("-o").arg(setting);
        }
        command.arg("-q");
        command
    }
}

/// Unpacks a package below `into`, without installing anything.
pub(crate) fn unpack(deb: &Path, into: &Path) -> Result<()> {
    let mut dpkg = Command::new("dpkg");
    process::capture(dpkg.arg("-x").arg(deb).arg(into), INSTALL_LIMIT).map(drop)
}

/// The mirrors of Debian's `main` that the machine is configured with.
pub(crate) fn mirrors() -> Result<Vec<String>> {
    let mut files = vec![PathBuf::from(SOURCES)];
    if let Ok(dir) = fs::read_dir(SOURCES_DIR) {
        let mut more: Vec<PathBuf> = dir.filter_map(|entry| Some(entry.ok()?.path())).collect();
        more.sort();
        files.append(&mut more);
    }
    let mut mirrors: Vec<String> = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let text = fs::read_to_string(file)
            .with_context(|| format!("{} cannot be read", file.display()))?;
        let found = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => from_list(&text),
            Some("sources") => from_sources(&text),
            _ => continue,
        };
        for uri in found.into_iter().flat_map(expand) {
            let uri = uri.trim_end_matches('/').to_owned();
            if !mirrors.contains(&uri) {
                mirrors.push(uri);
            }
        }
    }
    Ok(mirrors)
}

/// A `mirror+file:` URI names a file with one mirror a line.
fn expand(uri: String) -> Vec<String> {
    let Some(list) = uri.strip_prefix("mirror+file:") else {
        return vec![uri];
    };
    let list = Path::new("/").join(list.trim_start_matches('/'));
    let text = fs::read_to_string(list).unwrap_or_default();
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Mirrors in the one-line format: `deb [options] uri suite component…`.
fn from_list(text: &str) -> Vec<String> {
    let entries = text.lines().filter_map(|line| {
        let line = line.split('#').next()?.trim();
        let rest = line.strip_prefix("deb")?;
        let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        let mut words = rest.split_whitespace();
        let uri = words.next()?;
        let _suite = words.next()?;
        words
            .any(|component| component == "main")
            .then(|| uri.to_owned())
    });
    entries.collect()
}

/// Mirrors in the deb822 format: stanzas of `Field: value`, continued on lines
/// that begin with white space.
fn from_sources(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let text: Vec<&str> = lines.map(str::trim_end).collect();
    text.split(|line| line.is_empty())
        .filter(|stanza| {
            field(stanza, "enabled").first() != Some(&"no")
                && field(stanza, "types").contains(&"deb")
                && field(stanza, "components").contains(&"main")
        })
        .flat_map(|stanza| field(stanza, "uris"))
        .map(str::to_owned)
        .collect()
}

/// The words of a stanza's field, whose name is given in lower case.
fn field<'a>(stanza: &[&'a str], name: &str) -> Vec<&'a str> {
    let mut words = Vec::new();
    let mut inside = false;
    for line in stanza {
        if line.starts_with([' ', '\t']) {
            if inside {
                words.extend(line.split_whitespace());
            }
        } else if let Some((field, value)) = line.split_once(':') {
            inside = field.eq_ignore_ascii_case(name);
            if inside {
                words.extend(value.split_whitespace());
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_sources_are_read() {
        let text = "\
# deb http://commented.example/debian stable main
deb http://a.example/debian stable main contrib
deb-src http://src.example/debian stable main
deb\t[arch=amd64 signed-by=/usr/share/k.gpg] https://b.example/debian/ stable main # why
deb http://other.example/tool stable tool
deb [broken http://c.example/debian stable main
";
        assert_eq!(
            from_list(text),
            ["http://a.example/debian", "https://b.example/debian/"]
        );
    }

    #[test]
    fn deb822_sources_are_read() {
        let text = "\
# a comment
Types: deb deb-src
URIs: http://a.example/debian
  http://b.example/debian
Suites: stable
Components: main contrib

Types: deb-src
URIs: http://src.example/debian
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Components: main

types: deb
uris: http://c.example/debian
# in between
suites: stable
components:
 main
";
        let expected = ["a", "b", "c"].map(|host| format!("http://{host}.example/debian"));
        assert_eq!(from_sources(text), expected);
    }

    #[test]
    fn a_list_of_mirrors_is_expanded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "# ours\nhttp://a.example/debian\tpriority:1\n\nhttp://b.example/debian\n";
        fs::write(file.path(), text).unwrap();
        let uri = format!("mirror+file:{}", file.path().display());
        assert_eq!(
            expand(uri),
            ["http://a.example/debian", "http://b.example/debian"]
        );
        assert_eq!(expand("http://c.example".into()), ["http://c.example"]);
    }
}
