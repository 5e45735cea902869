import Foundation
import LongspanKernels
import LongspanMeasure

/// A run of `longspan bench` for programs.
struct BenchReport: Encodable {
  struct Header: Encodable {
    let machine: BenchmarkEnvironment
    let ceilings: MachineCeilings
    /// Of each case.
    let seconds: Double
    /// When the run ended; the machine has the one when it began.
    let loadAverageEnd = BenchmarkEnvironment.loadAverage

    private enum CodingKeys: String, CodingKey {
      case machine, ceilings, seconds
      case loadAverageEnd = "load_average_end"
    }
  }

  let header: Header
  let rows: [BenchmarkRow]

  func json() throws(LongspanError) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    guard let data = try? encoder.encode(self) else {
      throw LongspanError(.invalidArgument, "a result is not a finite number, which JSON cannot hold")
    }
    return String(decoding: data, as: UTF8.self) + "\n"
  }
}

extension BenchmarkEnvironment {
  var rows: [(String, String)] {
    [
      ("longspan", version),
      ("CPU", "\(cpu), \(cores) cores"),
      (
        "caches",
        "L1d \(SystemMemory.describe(l1dBytes)), L2 \(SystemMemory.describe(l2Bytes)), "
          + "L3 \(SystemMemory.describe(l3Bytes))"
      ),
      ("load average", decimal(loadAverage, 2)),
      ("OpenMP", "wait policy \(ompWaitPolicy), KMP_BLOCKTIME \(kmpBlocktime)"),
    ]
  }
}
