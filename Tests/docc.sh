#!/bin/sh
# Checks the documentation of the Swift modules: every public symbol has a comment, every link in comments and catalogs leads
# somewhere, and the programs in the catalogs print what they say. Leaves archives in .build/docc, which
# `docc preview` or any web server shows. Builds the package's debug products where they are not there.
set -eu
cd "$(dirname "$0")/.."
work=.build/docc
modules="LongspanKernels Longspan LongspanMeasure LongspanModels"
swift=$(dirname "$(readlink -f "$(command -v swift)")")
rm -rf $work && mkdir -p $work/programs

swift build --product longspan >$work/log 2>&1 || { cat $work/log >&2; exit 1; }
bin=$(swift build --show-bin-path)
target=$("$swift/swiftc" -print-target-info | sed -n 's/^ *"unversionedTriple": "\(.*\)",$/\1/p')
for module in $modules; do
  mkdir -p $work/symbols/$module
  "$swift/swift-symbolgraph-extract" -module-name $module -target "$target" -I "$bin/Modules" -I CKernels \
    -minimum-access-level public -output-dir $work/symbols/$module
done
python3 Tests/documented.py $work/symbols/*/*.json

# Parameters that their names explain are not listed, so that lists may be partial.
options="--enable-experimental-external-link-support --disable-parameters-and-returns-validation --warnings-as-errors"
dependencies=
for module in $modules; do
  "$swift/docc" convert Sources/$module/Documentation.docc $options $dependencies --fallback-display-name $module \
    --fallback-bundle-identifier $module --additional-symbol-graph-dir $work/symbols/$module \
    --output-path $work/$module.doccarchive >$work/log 2>&1 || { cat $work/log >&2; exit 1; }
  dependencies="$dependencies --dependency $work/$module.doccarchive"
done
echo "links of $(echo $modules | wc -w) modules resolve"

# The objects of today's sources, of which a folder that was built before may hold others too.
objects=
for module in $modules; do
  for source in $(find Sources/$module -name '*.swift') LongspanBuildStamp.swift resource_bundle_accessor.swift; do
    object=$bin/$module.build/$(basename "$source").o
    [ ! -e "$object" ] || objects="$objects $object"
  done
done

# beside the programs, where the package's own would look for them
ln -s "$bin/longspan_LongspanModels.resources" $work/programs/
for module in $modules; do
  source=$work/programs/$module.swift
  sed -n '/^```swift$/,/^```$/{/^```/!p}' Sources/$module/Documentation.docc/$module.md >"$source"
  mkdir -p $work/programs/$module && cp "$source" $work/programs/$module/main.swift
  "$swift/swiftc" -swift-version 6 -warnings-as-errors -I "$bin/Modules" -I CKernels $work/programs/$module/main.swift $objects \
    -L .build/longspan/prefix/lib -llongspan -l:libomp.so.5 -lopenblas -lhwloc -lm -o "$work/programs/$module-program"
  "$work/programs/$module-program" >$work/programs/$module.printed
  sed -n 's|.*// prints ||p' "$source" | diff - $work/programs/$module.printed
  [ -s $work/programs/$module.printed ] || { echo "$module.md has no program that prints" >&2; exit 1; }
done
echo "programs of $(echo $modules | wc -w) catalogs print what they say"
