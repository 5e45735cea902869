import ArgumentParser
import Foundation
import Longspan
import LongspanKernels
import LongspanMeasure
import LongspanModels

struct ProfileCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "profile", abstract: "Runs a model and shows where the time goes, by kernel and by layer.",
    discussion: """
      It measures this machine's ceilings, then reads a prompt (prefill) and generates tokens after it (decode), \
      always the likeliest. A kernel's fraction is how much of the ceiling that bounds it its calls reached.
      """)

  @OptionGroup var model: ModelOptions
  @OptionGroup var cache: CacheOptions

  @Option(help: "A UTF-8 file with the prompt.")
  var promptFile: String?

  @Option(help: "A UTF-8 text file whose first --tokens tokens are the prompt.")
  var text: String?

  @Option(help: "Tokens of --text to use; by default all.")
  var tokens: Int?

  @Option(help: "Tokens to generate.")
  var generate = 32

  @Option(help: "Seconds for each of the loops that measure the machine.")
  var seconds = 0.5

  @Option(help: "Write every kernel call as a trace for Perfetto (ui.perfetto.dev) or chrome://tracing.")
  var trace: String?

  @Flag(help: "Print JSON instead of tables.")
  var json = false

  func validate() throws {
    guard tokens.map({ $0 >= 1 }) ?? true else { throw ValidationError("--tokens must be at least 1") }
    guard tokens == nil || text != nil else { throw ValidationError("--tokens goes with --text") }
    guard generate >= 0 else { throw ValidationError("--generate \(generate) is below 0") }
    guard cache.chunk > 0 else { throw ValidationError("--chunk \(cache.chunk) is below 1") }
    guard seconds >= 0, seconds <= 3600 else { throw ValidationError("--seconds must be 0 to 3600") }
  }

  func run() throws {
    let prompt = try promptText()
    if let trace { try OutputFile.require(trace) }
    let model = try model.load()
    let tokens = try promptTokens(prompt, model)
    let topology = try MachineTopology()
    let environment = BenchmarkEnvironment(topology)
    let (ceilings, team) = try measureCeilings(model.context, topology)

    let bar = ProgressBar(unit: "tokens")
    defer { bar.clear() }
    let run = try ProfiledRun(
      of: model, prompt: tokens, generating: generate, chunk: cache.chunk, policy: cache.policy(),
      cacheType: cache.cacheType,
      progress: bar.update)
    bar.clear()
    let layers = model.layerCount
    let report = ProfileReport(
      run.recording, phases: run.phases, layers: layers, team: team, topology: topology)
    if let trace {
      let title = "longspan profile of \(model.name)"
      try OutputFile.write(
        try ProfileTrace(run.recording, phases: run.phases, layers: layers, title: title).json(), to: trace)
    }
    if json {
      try printJSON(ProfileSummary(report, model, self, environment, ceilings))
    } else {
      printTable(environment.rows + [("model", model.name), ("run with", runDescription(model))])
      print()
      BenchTable.printCeilings(ceilings)
      ProfileTable(report).printAll()
    }
  }

  private func runDescription(_ model: any LanguageModel) -> String {
    "\(model.context.workerCount) threads, \(model.context.isa), \(cache.cacheType.rawValue) cache (\(cache.kv)), "
      + "prompt in chunks of \(cache.chunk)"
  }

  private func promptText() throws(LongspanError) -> String {
    switch (promptFile, text) {
    case (let path?, nil), (nil, let path?): return try TextFile.read(path)
    case (nil, nil):
      throw LongspanError(.invalidText, "there is no prompt: give --prompt-file, or --text and --tokens")
    case (_?, _?): throw LongspanError(.invalidArgument, "give --prompt-file or --text, not both")
    }
  }

  private func promptTokens(_ prompt: String, _ model: any LanguageModel) throws(LongspanError) -> [Int32] {
    let all = model.promptTokens(prompt)
    let count = tokens ?? all.count
    guard count <= all.count else {
      throw LongspanError(.invalidText, "\(text ?? ""): has \(all.count) tokens, fewer than \(count)")
    }
    return Array(all[..<count])
  }

  private func measureCeilings(
    _ context: KernelContext, _ topology: MachineTopology
  ) throws(LongspanError) -> (MachineCeilings, MachineCeilings.Team) {
    let bar = ProgressBar(unit: "loops")
    defer { bar.clear() }
    let ceilings = try MachineCeilings.measure(
      threadCounts: [context.workerCount], topology: topology, seconds: seconds
    ) { completed, total in
      _ = bar.update(ProgressUpdate(stage: "ceilings", completed: completed, total: total))
    }
    guard let team = ceilings[context.workerCount] else {
      throw LongspanError(.unsupported, "the ceilings of \(context.workerCount) threads were not measured")
    }
    return (ceilings, team)
  }
}

/// A run of `longspan profile` for programs.
private struct ProfileSummary: Encodable {
  let machine: BenchmarkEnvironment
  let ceilings: MachineCeilings
  let loadAverageEnd = BenchmarkEnvironment.loadAverage
  let model: String
  let threads: Int
  let isa: String
  let chunk: Int
  let cacheType: String
  let kv: String
  let phases: [ProfileReport.Phase]
  let lostCalls: Int

  private enum CodingKeys: String, CodingKey {
    case machine, ceilings, loadAverageEnd, model, threads, isa, chunk, cacheType, kv, phases, lostCalls
  }

  init(
    _ report: ProfileReport, _ model: any LanguageModel, _ command: ProfileCommand,
    _ environment: BenchmarkEnvironment, _ ceilings: MachineCeilings
  ) {
    machine = environment
    self.ceilings = ceilings
    self.model = model.name
    threads = model.context.workerCount
    isa = model.context.isa
    chunk = command.cache.chunk
    cacheType = command.cache.cacheType.rawValue
    kv = command.cache.kv
    phases = report.phases
    lostCalls = report.lostCalls
  }
}

extension ProfileTrace {
  /// The trace file's content.
  func json() throws(LongspanError) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.withoutEscapingSlashes]
    guard let data = try? encoder.encode(self) else {
      throw LongspanError(.invalidArgument, "a time is not a finite number, which JSON cannot hold")
    }
    return String(decoding: data, as: UTF8.self) + "\n"
  }
}
