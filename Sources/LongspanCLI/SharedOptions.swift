import ArgumentParser
import Foundation
import Longspan
import LongspanKernels
import LongspanModels

extension ElementType: ExpressibleByArgument {}
extension WeightStorage: ExpressibleByArgument {}

/// What every command that runs a model takes.
struct ModelOptions: ParsableArguments {
  @Option(
    name: .shortAndLong,
    help: ArgumentHelp(
      "The model: a GGUF file of architecture \(LanguageModels.architectures.joined(separator: ", ")), a folder with "
        + "config.json, tokenizer.json and model.safetensors of \(LanguageModels.folderArchitectures.joined(separator: ", ")), "
        + "or one of the tiny ones that come along: \(EmbeddedModel.allCases.map(\.rawValue).joined(separator: ", "))."
    ))
  var model = EmbeddedModel.mamba2.rawValue

  @Option(
    help:
      "How weights are held: native (in the file's types, inputs of products rounded to 8 bits or bf16 to match), exact (in the file's types, inputs in f32) or f32 (decoded once)."
  )
  var weights = WeightStorage.native

  @OptionGroup var kernels: KernelOptions

  /// Loads the model, with a progress bar.
  func load() throws(LongspanError) -> any LanguageModel {
    let bar = ProgressBar(unit: "layers")
    defer { bar.clear() }
    return try LanguageModels.load(
      path: EmbeddedModel.path(of: model), storage: weights, context: kernels.makeContext(),
      progress: bar.update)
  }
}

extension ModelOptions {
  /// Tells the model's weights file from others.
  func fingerprint() throws(LongspanError) -> String {
    try ModelFingerprint.of(path: EmbeddedModel.path(of: model))
  }
}

/// What kernels run with.
struct KernelOptions: ParsableArguments {
  @Option(name: .shortAndLong, help: "Threads; 0 for the physical cores.")
  var threads = 0

  @Option(
    help:
      "ISA variant, as `longspan info` lists them; by default the best that this CPU runs.")
  var isa: String?

  @Option(
    help:
      "Cut work as for this many threads, so that results have the same bits for any --threads; 0 cuts it for the threads in use."
  )
  var fixedSplit = 0

  func makeContext() throws(LongspanError) -> KernelContext {
    try KernelContext(threads: threads, isa: isa, fixedSplit: fixedSplit)
  }
}

/// How the cache is made and filled.
struct CacheOptions: ParsableArguments {
  @Option(help: ArgumentHelp("What the cache keeps: \(KVPolicyOption.help).", valueName: "policy"))
  var kv = "dense"

  @Option(help: "How keys and values are stored: f32, f16 or bf16.")
  var cacheType = ElementType.f32

  @Option(help: "Tokens of the prompt read at once.")
  var chunk = 512

  func policy() throws(LongspanError) -> any KVCachePolicy { try KVPolicyOption.policy(kv) }
}

/// Several cache policies on one command line, and how their caches are made and filled.
struct PolicyListOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "What the cache keeps, once for each policy to try: \(KVPolicyOption.help). By default dense.",
      valueName: "policy"))
  var kv: [String] = []

  @Option(help: "How keys and values are stored: f32, f16 or bf16.")
  var cacheType = ElementType.f32

  @Option(help: "Tokens read at once.")
  var chunk = 512

  func validate() throws {
    guard chunk > 0 else { throw ValidationError("--chunk \(chunk) is below 1") }
  }

  func policies() throws(LongspanError) -> [any KVCachePolicy] {
    guard !kv.isEmpty else { return [DensePolicy()] }
    var policies: [any KVCachePolicy] = []
    for text in kv { policies.append(try KVPolicyOption.policy(text)) }
    return policies
  }
}

/// A text and which of its tokens are used.
struct TextOptions: ParsableArguments {
  @Option(name: [.customLong("text")], help: "A UTF-8 text file.")
  var path: String

  @Option(help: "Tokens of the text to leave out at its beginning.")
  var skip = 0

  @Option(help: "Tokens to use after those; by default all.")
  var tokens: Int?

  func validate() throws {
    guard skip >= 0 else { throw ValidationError("--skip \(skip) is below 0") }
    guard tokens.map({ $0 >= 2 }) ?? true else { throw ValidationError("--tokens must be at least 2") }
  }

  func read() throws(LongspanError) -> String { try TextFile.read(path) }

  /// The tokens of the text that was read, at least two.
  func tokens(of text: String, _ model: any LanguageModel) throws(LongspanError) -> [Int32] {
    let all = model.tokenizer.encode(text, parsingSpecialTokens: false)
    guard skip < all.count - 1 else {
      throw LongspanError(
        .invalidText, "\(path): has \(all.count) tokens, too few to predict one after skipping \(skip)")
    }
    let count = tokens ?? all.count - skip
    guard count <= all.count - skip else {
      throw LongspanError(
        .invalidText, "\(path): has \(all.count - skip) tokens after the first \(skip), fewer than \(count)")
    }
    return Array(all[skip..<skip + count])
  }
}

/// Prints a value as JSON with keys in a fixed order.
func printJSON(_ value: some Encodable) throws(LongspanError) {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
  encoder.keyEncodingStrategy = .convertToSnakeCase
  guard let data = try? encoder.encode(value) else {
    throw LongspanError(.invalidArgument, "a result is not a finite number, which JSON cannot hold")
  }
  print(String(decoding: data, as: UTF8.self))
}

/// Prints rows of two columns, the first as wide as its longest entry.
func printTable(_ rows: [(String, String)]) {
  let width = rows.map(\.0.count).max() ?? 0
  for (name, value) in rows {
    print(name.padding(toLength: width, withPad: " ", startingAt: 0) + "  " + value)
  }
}

/// A number with `digits` decimals.
func decimal(_ value: Double, _ digits: Int) -> String {
  String(format: "%.\(digits)f", value)
}
