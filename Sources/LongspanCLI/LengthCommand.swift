import ArgumentParser
import Longspan
import LongspanKernels
import LongspanModels

struct LengthCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "length",
    abstract: "Perplexity and recall at several text lengths, by filter of time steps.",
    discussion: """
      Windows of the text are read as prompts but for their last tokens, which are scored. Models that know the recall task \
      (those that come with Longspan) are also asked for facts that were told before, or in, a long piece of the text.
      """)

  @OptionGroup var model: ModelOptions
  @OptionGroup var text: TextOptions

  @Option(
    help: ArgumentHelp(
      "A filter to try, once for each: \(TimeStepPolicyOption.help). By default none.", valueName: "filter"))
  var filter: [String] = []

  @Option(help: "Lengths as multiples of what the model was trained on, between commas.")
  var multiples = "1,2,4,8,16,32"

  @Option(help: "Tokens read at once.")
  var chunk = 512

  @Option(help: "Windows of each length.")
  var windows = 8

  @Option(help: "Tokens scored at the end of each window.")
  var scored = 128

  @Option(help: "Recall prompts of each length and depth.")
  var prompts = 8

  @Option(help: "Facts of a recall prompt.")
  var facts = 8

  @Option(help: "Where facts stand in a prompt, from 0 to 1, between commas.")
  var depths = "0"

  @Option(help: "Seed of the recall prompts.")
  var seed: UInt64 = 0

  @Option(help: "Write perplexity and recall by length as an SVG plot.")
  var plot: String?

  @Flag(help: "Print JSON.")
  var json = false

  func validate() throws {
    _ = try list(multiples, "multiples", Int.init) { $0 >= 1 && $0 <= 1 << 20 }
    _ = try list(depths, "depths", Double.init) { $0 >= 0 && $0 <= 1 }
  }

  func run() throws {
    if let plot { try OutputFile.require(plot) }
    let content = try text.read()
    let loaded = try model.load()
    var policies: [any TimeStepPolicy] = []
    for name in filter.isEmpty ? ["none"] : filter {
      policies.append(try model.timeStepPolicy(name, loaded))
    }
    let factors = try list(multiples, "multiples", Int.init) { $0 >= 1 && $0 <= 1 << 20 }
    let evaluation = LengthEvaluation(
      lengths: factors.map { $0 * loaded.trainedContext }, chunk: chunk, windows: windows, scored: scored,
      prompts: prompts, facts: facts, depths: try list(depths, "depths", Double.init) { $0 >= 0 && $0 <= 1 },
      seed: seed)
    let bar = ProgressBar(unit: "tokens")
    defer { bar.clear() }
    let results = try evaluation.run(
      loaded, tokens: try text.tokens(of: content, loaded), policies: policies, progress: bar.update)
    bar.clear()
    let summary = LengthSummary(results, evaluation, loaded)
    if let plot { try LengthPlot(summary: summary).write(to: plot) }
    if json {
      try printJSON(summary)
    } else {
      summary.printTable()
    }
  }

  private func list<Value>(
    _ text: String, _ option: String, _ read: (String) -> Value?, _ fits: (Value) -> Bool
  ) throws -> [Value] {
    try text.split(separator: ",", omittingEmptySubsequences: false).map { part in
      guard let value = read(String(part)), fits(value) else {
        throw ValidationError("--\(option): '\(part)' is out of range; give numbers between commas")
      }
      return value
    }
  }
}

/// What `longspan eval length` found, as JSON and as a table.
struct LengthSummary: Encodable {
  struct Row: Encodable {
    let filter: String
    let length: Int
    let perplexity: Double
    let recall: Double?
    let readTokensPerSecond: Double
  }

  let model: String
  let trainedLength: Int
  let windows: Int
  let scored: Int
  let prompts: Int
  let facts: Int
  let depths: [Double]
  let threads: Int
  let isa: String
  let rows: [Row]

  init(_ results: [LengthMeasurement], _ evaluation: LengthEvaluation, _ model: any LanguageModel) {
    self.model = model.name
    trainedLength = model.trainedContext
    windows = evaluation.windows
    scored = evaluation.scored
    prompts = evaluation.prompts
    facts = evaluation.facts
    depths = evaluation.depths
    threads = model.context.workerCount
    isa = model.context.isa
    rows = results.map { result in
      Row(
        filter: result.policy, length: result.length, perplexity: result.perplexity, recall: result.recall,
        readTokensPerSecond: result.readTokensPerSecond)
    }
  }

  /// Filters in the order they were asked for.
  var filters: [String] {
    var seen: Set<String> = []
    return rows.map(\.filter).filter { seen.insert($0).inserted }
  }

  /// Lengths, ascending.
  var lengths: [Int] { Set(rows.map(\.length)).sorted() }

  func printTable() {
    print(
      "\(model), trained on \(trainedLength) tokens: the last \(scored) tokens of \(windows) windows, \(facts) facts in "
        + "\(prompts) prompts a depth (\(threads) threads, \(isa))")
    section("perplexity") { Cell.number($0.perplexity) }
    if rows.contains(where: { $0.recall != nil }) {
      section("recall") { row in row.recall.map { "\(decimal(100 * $0, 1))%" } ?? "" }
    }
    section("read/s") { decimal($0.readTokensPerSecond, 0) }
  }

  private func section(_ name: String, _ cell: (Row) -> String) {
    Cell.table(
      [[name] + lengths.map { "\($0)" }]
        + filters.map { filter in
          [filter]
            + lengths.map { length in
              rows.first { $0.filter == filter && $0.length == length }.map(cell) ?? ""
            }
        })
  }
}
