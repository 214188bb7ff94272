// SPDX-License-Identifier: Apache-2.0
// Copies the C headers that the wasmtime-c-api-impl crate prepared for exactly these features to
// <target>/weft-include, where CMake finds them whatever hash cargo put into the crate's own directory.
use std::path::{Path, PathBuf};
use std::{env, fs};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("create include directory");
    for entry in fs::read_dir(from).expect("read include directory") {
        let entry = entry.expect("directory entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copy header");
        }
    }
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let include = env::var("DEP_WASMTIME_C_API_INCLUDE").expect("the crate names its headers");
    // OUT_DIR is <target>/release/build/<package>/out.
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let target = out.ancestors().nth(4).expect("OUT_DIR lies in the target directory");
    copy(Path::new(&include), &target.join("weft-include"));
}
