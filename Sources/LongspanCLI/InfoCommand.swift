import ArgumentParser
import Longspan
import LongspanKernels
import LongspanModels

struct InfoCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "info", abstract: "Shows what kernels run on, and a model's shape and memory.")

  @Option(name: .shortAndLong, help: "A GGUF model to load and describe.")
  var model: String?

  @Option(help: "How weights are held: native, exact or f32.")
  var weights = WeightStorage.native

  @Option(help: "Tokens of context to state the cache's size for; by default what the model was trained on.")
  var context: Int?

  @OptionGroup var kernels: KernelOptions

  @Flag(help: "Print JSON.")
  var json = false

  func run() throws {
    let context = try kernels.makeContext()
    let machine = MachineReport(try MachineTopology(), context)
    let described = try model.map { path throws(LongspanError) in
      let bar = ProgressBar(unit: "layers")
      defer { bar.clear() }
      let model = try LanguageModels.load(
        path: path, storage: weights, context: context, progress: bar.update)
      return try ModelReport(model, context: self.context)
    }
    if json {
      try printJSON(InfoReport(machine: machine, model: described))
    } else {
      printTable(machine.rows + (described?.rows ?? []))
    }
  }
}

private struct InfoReport: Encodable {
  let machine: MachineReport
  let model: ModelReport?
}

private struct MachineReport: Encodable {
  let version: String
  let isa: String
  let isaVariants: [String]
  let threads: Int
  let cores: Int
  let processingUnits: Int
  let numaNodes: Int
  let l1dBytes: Int
  let l2Bytes: Int
  let l3Bytes: Int
  let memoryBytes: Int
  let availableMemoryBytes: Int?
  let openblas: String
  let openblasThreading: String

  init(_ topology: MachineTopology, _ context: KernelContext) {
    version = KernelContext.libraryVersion
    isa = context.isa
    isaVariants = KernelContext.variants.filter(\.isSupported).map(\.name)
    threads = context.workerCount
    cores = topology.cores
    processingUnits = topology.processingUnits
    numaNodes = topology.numaNodes
    l1dBytes = topology.l1dBytes
    l2Bytes = topology.l2Bytes
    l3Bytes = topology.l3Bytes
    memoryBytes = topology.memoryBytes
    availableMemoryBytes = SystemMemory.availableBytes
    openblas = OpenBLAS.configuration
    openblasThreading = OpenBLAS.threading
  }

  var rows: [(String, String)] {
    [
      ("longspan", version),
      ("ISA variant", "\(isa) (this CPU runs \(isaVariants.joined(separator: ", ")))"),
      (
        "threads",
        "\(threads) of \(cores) cores, \(processingUnits) hardware threads, \(numaNodes) NUMA nodes"
      ),
      (
        "caches",
        "L1d \(SystemMemory.describe(l1dBytes)), L2 \(SystemMemory.describe(l2Bytes)), "
          + "L3 \(SystemMemory.describe(l3Bytes))"
      ),
      (
        "memory",
        SystemMemory.describe(memoryBytes)
          + (availableMemoryBytes.map { ", \(SystemMemory.describe($0)) available" } ?? "")
      ),
      ("OpenBLAS", "\(openblas), threads by \(openblasThreading)"),
    ]
  }
}
