import ArgumentParser
import Foundation
import LongspanKernels
import LongspanMeasure
import LongspanModels

struct BenchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench", abstract: "Measures this machine's ceilings, and how far each kernel is from them.",
    discussion: """
      Without options it times a table of realistic shapes of every kernel. A fraction of the ceiling is the fastest \
      call's rate over the best rate that a loop which does nothing else reached in the same run. With \
      --filter product,linear it times products of 1 to 512 rows with weights of every type that can be packed.
      """)

  @Option(help: "Kernels whose name contains this, or one of these: product,linear.")
  var filter: String?

  @Option(help: "Dimensions to replace, as Hq=32,Hk=8,D=128,S=131072; kernels without them are left out.")
  var shape: ShapeArgument?

  @Option(help: "Element type to use instead: f32, f16 or bf16.")
  var dtype: ElementType?

  @Option(help: "Operands cold (in memory) or warm (in the caches) only.")
  var cache: CacheState?

  @Option(name: .shortAndLong, help: "Thread counts, as 1,2; 0 for the physical cores.")
  var threads = ThreadsArgument(counts: [0])

  @Option(help: "ISA variant, as `longspan info` lists them; by default the best that this CPU runs.")
  var isa: String?

  @Option(help: "Cut work as for this many threads, whatever --threads is; 0 cuts it for the threads in use.")
  var fixedSplit = 0

  @Option(help: "Seconds of calls for each case.")
  var seconds = 1.0

  @Flag(help: "List the cases and run nothing.")
  var list = false

  @Option(help: "Write the rows, the machine and its ceilings as JSON.")
  var json: String?

  @Option(help: "Write a roofline plot as SVG.")
  var plot: String?

  func validate() throws {
    guard seconds >= 0, seconds <= 3600 else {
      throw ValidationError("--seconds must be 0 to 3600")
    }
  }

  func run() throws {
    let cases = try BenchmarkCase.select(
      filter: filter, shape: shape?.dimensions ?? [:], elementType: dtype, cache: cache)
    if list {
      BenchTable(cases).printCases()
      return
    }
    for path in [json, plot].compactMap({ $0 }) { try OutputFile.require(path) }
    let topology = try MachineTopology()
    var contexts: [KernelContext] = []
    for count in threads.counts {
      contexts.append(try KernelContext(threads: count, isa: isa, fixedSplit: fixedSplit))
    }
    let environment = BenchmarkEnvironment(topology)

    let bar = ProgressBar(unit: "loops")
    defer { bar.clear() }
    let all = try KernelContext(threads: 0, isa: isa).workerCount
    let ceilings = try MachineCeilings.measure(
      threadCounts: contexts.map(\.workerCount) + [1, all], topology: topology, seconds: min(seconds, 0.5)
    ) { completed, total in
      _ = bar.update(ProgressUpdate(stage: "ceilings", completed: completed, total: total))
    }
    bar.clear()
    printTable(environment.rows)
    print()
    BenchTable.printCeilings(ceilings)
    print()

    let runner = BenchmarkRunner(topology: topology, ceilings: ceilings, seconds: seconds)
    let settled = try runner.settle(cases)
    let table = BenchTable(settled)
    table.printHeader()
    var rows: [BenchmarkRow] = []
    let caseBar = ProgressBar(unit: "cases")
    defer { caseBar.clear() }
    for one in settled {
      for context in contexts {
        _ = caseBar.update(
          ProgressUpdate(stage: one.name, completed: rows.count, total: settled.count * contexts.count))
        let row = try runner.run(one, on: context)
        rows.append(row)
        caseBar.clear()
        table.print(row, of: one)
      }
    }
    RowScalingTable(rows).print()
    if let json {
      let report = BenchReport(
        header: .init(machine: environment, ceilings: ceilings, seconds: seconds), rows: rows)
      try OutputFile.write(try report.json(), to: json)
    }
    if let plot { try RooflinePlot(rows: rows, ceilings: ceilings).write(to: plot) }
  }
}

extension CacheState: ExpressibleByArgument {}

/// Dimensions as a person writes them: "Hq=32,S=4096".
struct ShapeArgument: ExpressibleByArgument {
  let dimensions: [String: Int]

  init?(argument: String) {
    var dimensions: [String: Int] = [:]
    for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
      let pair = part.split(separator: "=", omittingEmptySubsequences: false)
      guard pair.count == 2, !pair[0].isEmpty, let value = Int(pair[1]) else { return nil }
      dimensions[String(pair[0])] = value
    }
    self.dimensions = dimensions
  }
}

/// Thread counts as a person writes them: "1,2".
struct ThreadsArgument: ExpressibleByArgument {
  let counts: [Int]

  init(counts: [Int]) {
    self.counts = counts
  }

  init?(argument: String) {
    let parts = argument.split(separator: ",", omittingEmptySubsequences: false)
    let counts = parts.compactMap { Int($0) }
    guard counts.count == parts.count, counts.allSatisfy({ $0 >= 0 }) else { return nil }
    self.counts = counts
  }

  var defaultValueDescription: String { counts.map(String.init).joined(separator: ",") }
}
