// swift-tools-version: 6.2
import PackageDescription

// Default: the BuildKernels plugin builds CKernels with CMake into .build/longspan.
// LONGSPAN_SYSTEM=1: use a longspan installed on the system, found by pkg-config.
let system = Context.environment["LONGSPAN_SYSTEM"] == "1"
let prefix = "\(Context.packageDirectory)/.build/longspan/prefix"

let kernels: Target =
  system
  ? .systemLibrary(
    name: "CKernels", path: "CKernels", pkgConfig: "longspan",
    providers: [.apt(["libopenblas-openmp-dev", "libhwloc-dev", "libomp-dev"])])
  : .systemLibrary(name: "CKernels", path: "CKernels")

// libomp comes before OpenBLAS, so that one OpenMP runtime serves both.
let kernelLinkage: [LinkerSetting] =
  system
  ? []
  : [
    .unsafeFlags(["-L\(prefix)/lib"]),
    .linkedLibrary("longspan"), .linkedLibrary(":libomp.so.5"),
    .linkedLibrary("openblas"), .linkedLibrary("hwloc"), .linkedLibrary("m"),
  ]

// Members that return a Span say what it borrows from, which is still an experimental feature of the compiler.
let lifetimes: [SwiftSetting] = [.enableExperimentalFeature("Lifetimes")]

let package = Package(
  name: "longspan",
  products: [
    .library(name: "LongspanKernels", targets: ["LongspanKernels"]),
    .library(name: "Longspan", targets: ["Longspan"]),
    .library(name: "LongspanModels", targets: ["LongspanModels"]),
    .library(name: "LongspanMeasure", targets: ["LongspanMeasure"]),
    .executable(name: "longspan", targets: ["LongspanCLI"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0")
  ],
  targets: [
    kernels,
    .plugin(name: "BuildKernels", capability: .buildTool, path: "Sources/BuildKernels"),
    .target(
      name: "LongspanKernels", dependencies: ["CKernels"], swiftSettings: lifetimes,
      linkerSettings: kernelLinkage, plugins: system ? [] : ["BuildKernels"]),
    .target(name: "Longspan", dependencies: ["LongspanKernels"], swiftSettings: lifetimes),
    .target(
      name: "LongspanModels", dependencies: ["Longspan", "LongspanKernels"],
      resources: [.copy("Resources/longspan-mamba.gguf"), .copy("Resources/longspan-mamba2.gguf")],
      swiftSettings: lifetimes),
    // the C library beside the Swift one: what a call costs from either
    .target(
      name: "LongspanMeasure", dependencies: ["LongspanKernels", "CKernels"], swiftSettings: lifetimes),
    .executableTarget(
      name: "LongspanCLI",
      dependencies: [
        "LongspanModels", "Longspan", "LongspanKernels", "LongspanMeasure",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ], swiftSettings: lifetimes),
    .testTarget(name: "LongspanKernelsTests", dependencies: ["LongspanKernels"], swiftSettings: lifetimes),
    .testTarget(
      name: "LongspanTests", dependencies: ["Longspan", "LongspanKernels"], swiftSettings: lifetimes),
    .testTarget(
      name: "LongspanModelsTests", dependencies: ["LongspanModels", "Longspan", "LongspanKernels"],
      swiftSettings: lifetimes),
    .testTarget(
      name: "LongspanMeasureTests", dependencies: ["LongspanMeasure", "LongspanKernels"],
      swiftSettings: lifetimes),
    .testTarget(name: "LongspanCLITests", dependencies: ["LongspanCLI"], swiftSettings: lifetimes),
  ]
)
