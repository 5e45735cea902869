// swift-tools-version: 6.2
import PackageDescription

// Fuzz targets of the readers of model files. Tests/fuzz.sh builds them with -sanitize=fuzzer,address.
let package = Package(
  name: "longspan-fuzz",
  dependencies: [.package(name: "longspan", path: "../..")],
  targets: [
    .target(name: "CFuzzer"),
    .executableTarget(
      name: "LongspanFuzz",
      dependencies: [
        "CFuzzer", .product(name: "LongspanModels", package: "longspan"),
        .product(name: "LongspanKernels", package: "longspan"),
      ],
      swiftSettings: [.enableExperimentalFeature("Lifetimes")]),
  ]
)
